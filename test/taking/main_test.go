//go:build linux

// Package taking has how a lock is taken: from which etcd, which is reached and logged in to, or
// started, and may lack something; by whom, and after whom; alone, shared, as one of several slots,
// several at once, below another lock, from a holder that was killed. The real etcdlocker runs on a
// real etcd.
package taking

import (
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

func TestMain(m *testing.M) { os.Exit(programs.Main(etcdtest.Main(m))) }
