//go:build linux

// Package scenarios has what a command lives through that runs under a lock, and whoever looks
// after it: the real etcdlocker runs on a real etcd.
package scenarios

import (
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		play(role)
	}
	os.Exit(programs.Main(etcdtest.Main(m)))
}
