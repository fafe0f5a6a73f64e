package follow

import (
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }
