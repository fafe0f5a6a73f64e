package guard

import (
	"fmt"
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/stubborn"
)

// roleVariable makes the test binary play a part of package stubborn.
const roleVariable = "ETCDLOCK_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		stubborn.Play(role, func(err error) { fmt.Println("ready", err) })
		os.Exit(1)
	}
	os.Exit(etcdtest.Main(m).Run())
}
