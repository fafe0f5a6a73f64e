package model

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/etcdlock/etcdlock/internal/gentle"
)

func TestMain(m *testing.M) {
	gentle.GiveWay()
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
