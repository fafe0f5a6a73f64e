//go:build linux

package programs

import (
	"sync"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// BuildEtcdctl builds etcdctl beside our programs ([Path]), for those tests that compare.
func BuildEtcdctl(t *testing.T) {
	t.Helper()
	if err := builtEtcdctl(); err != nil {
		t.Fatal(err)
	}
}

var builtEtcdctl = sync.OnceValue(func() error {
	return etcdtest.GoBuild("../../bench", "-o", Path("etcdctl"), "go.etcd.io/etcd/etcdctl/v3")
})
