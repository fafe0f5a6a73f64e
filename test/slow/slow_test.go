package slow

import (
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

// TestSlow: a write goes from the client to a member, from there to another, and back.
func TestSlow(t *testing.T) {
	const delay = 10 * time.Millisecond
	dir := t.TempDir()
	c, err := Start(dir, delay)
	if err != nil {
		t.Fatal(err)
	}
	client := etcdtest.Dial(t, clientv3.Config{Endpoints: c.Endpoints})
	for range 2 { // the first one connects
		began := time.Now()
		if _, err := client.Put(etcdtest.Context(t), "a", "1"); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 4*delay {
			t.Errorf("a write took %v with a delay of %v each way", took, delay)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestStageReportsFailures(t *testing.T) {
	s := &stage{dir: t.TempDir()}
	var order []string
	err := s.play(func() {
		s.Cleanup(func() { order = append(order, "first") })
		s.Cleanup(func() { order = append(order, "last") })
		s.Fatalf("%d things are wrong", 2)
		order = append(order, "went on")
	})
	if err == nil || !strings.Contains(err.Error(), "2 things are wrong") || !s.Failed() {
		t.Errorf("play: %v", err)
	}
	s.end()
	if strings.Join(order, ", ") != "last, first" {
		t.Errorf("what has run: %v", order)
	}
}
