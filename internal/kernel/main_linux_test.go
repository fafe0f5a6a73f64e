package kernel_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// locksMemory has the test binary lock its memory and say how much of it is.
const locksMemory = "ETCDLOCK_TEST_LOCKS_MEMORY"

func TestMain(m *testing.M) {
	if os.Getenv(locksMemory) != "" {
		fmt.Println(lockedMemory())
		fmt.Println(kernel.LockMemory())
		fmt.Println(lockedMemory())
		os.Exit(0)
	}
	os.Exit(etcdtest.Main(m).Run())
}
