package wire

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// TestProbeReadsNothing: a ProbeRead counts one key, and has no other operation: its answer shows
// that etcd answers, and nothing else.
func TestProbeReadsNothing(t *testing.T) {
	want := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte("k"), CountOnly: true},
	}}}}
	if got := ProbeRead("k"); !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
