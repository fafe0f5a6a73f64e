package model

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/etcdlock/etcdlock/internal/gentle"
)

func TestMain(m *testing.M) {
	gentle.GiveWay()
	// Worlds are small and do not live long: half of the time would go to collecting them.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}
