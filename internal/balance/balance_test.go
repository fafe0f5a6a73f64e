package balance_test

import (
	"context"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/etcdlock/etcdlock/internal/balance"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

// TestSilentMember: a client of two members meets the one that is silent once at most.
func TestSilentMember(t *testing.T) {
	s := etcdtest.Shared(t)
	link, _ := s.Linked(t)
	config := s.Config()
	config.Endpoints = append(config.Endpoints, link.Endpoint())
	config.DialOptions = append(config.DialOptions, balance.DialOptions()...)
	kv := pb.NewKVClient(etcdtest.Dial(t, config).ActiveConnection())
	read := func(limit time.Duration) (from string, err error) {
		ctx, cancel := context.WithTimeout(etcdtest.Context(t), limit)
		defer cancel()
		var p peer.Peer
		_, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("/silent"), Serializable: true}, grpc.Peer(&p))
		if p.Addr != nil {
			from = p.Addr.String()
		}
		return from, err
	}
	for seen := map[string]bool{}; len(seen) < 2; {
		from, err := read(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		seen[from] = true
	}
	link.SilenceDown()
	met := 0
	for range 10 {
		if from, _ := read(2 * time.Second); "http://"+from == link.Endpoint() {
			met++
		}
	}
	if met > 1 {
		t.Errorf("%d of 10 reads met the silent member", met)
	}
}
