//go:build linux

// Package steering has what looks after locks: the real etcdlockctl runs beside the holders of a
// real etcd, shows what they do, and has them stop.
package steering

import (
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

func TestMain(m *testing.M) { os.Exit(programs.Main(etcdtest.Main(m))) }
