package model

import (
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/gentle"
)

func TestMain(m *testing.M) {
	gentle.GiveWay()
	os.Exit(m.Run())
}
