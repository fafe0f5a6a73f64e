package wire

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/mode"
)

// places returns a place of one contender in the line of each of two locks.
func places() []Place {
	return []Place{
		{Lock: "k", Key: LinkedPlace("k", 0x1f, 1), Lease: 0x1f, ID: "me", Record: "{}", Linked: true},
		{Lock: "l", Key: SharedPlace("l", 0x1f, 2), Lease: 0x1f, ID: "me", Record: "{}", Mode: mode.Shared},
	}
}

// TestAcquireAllIsAllOfEach: AcquireAllIfFree compares what each request compares, and does what
// each does, in their order, and nothing else. AcquireAnswers divides the answer in the same way.
func TestAcquireAllIsAllOfEach(t *testing.T) {
	for name, of := range map[string]func(Place) *pb.TxnRequest{
		"alone":       func(p Place) *pb.TxnRequest { return AcquireIfFree(p, false) },
		"alone again": func(p Place) *pb.TxnRequest { return AcquireIfFree(p, true) },
		"shared":      ShareIfFree,
	} {
		one, other := of(places()[0]), of(places()[1])
		want := &pb.TxnRequest{
			Compare: slices.Concat(one.Compare, other.Compare),
			Success: slices.Concat(one.Success, other.Success),
			Failure: slices.Concat(one.Failure, other.Failure),
		}
		if got := AcquireAllIfFree([]*pb.TxnRequest{one, other}); !proto.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		resp := &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 7}, Succeeded: true}
		for range len(want.Success) {
			resp.Responses = append(resp.Responses, &pb.ResponseOp{})
		}
		each := AcquireAnswers(resp, 2)
		if len(each) != 2 || !slices.Equal(slices.Concat(each[0].Responses, each[1].Responses), resp.Responses) {
			t.Fatalf("%s: the answers are %v", name, each)
		}
		for i, answer := range each {
			if !answer.Succeeded || answer.Header != resp.Header || len(answer.Responses) != len(one.Success) {
				t.Errorf("%s: answer %d is %v", name, i, answer)
			}
		}
	}
}

// TestBatchNestsEach: Batch has each request as it is, nested, and nothing else. BatchAnswers
// returns what is nested in the answer, with its header.
func TestBatchNestsEach(t *testing.T) {
	each := []*pb.TxnRequest{Release(places()[0], 7, true), Leave(places()[0], 8, false, Link{}), Share(places()[1])}
	got := Batch(each)
	if len(got.Compare)+len(got.Failure) > 0 || len(got.Success) != len(each) {
		t.Fatalf("not as many nested transactions as requests: %v", got)
	}
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 9}, Succeeded: true}
	for i, op := range got.Success {
		if !proto.Equal(op.GetRequestTxn(), each[i]) {
			t.Errorf("%v, want %v", op, each[i])
		}
		inner := &pb.TxnResponse{Succeeded: i == 0}
		resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: inner}})
	}
	for i, answer := range BatchAnswers(resp) {
		if answer != resp.Responses[i].GetResponseTxn() || answer.Header != resp.Header {
			t.Errorf("answer %d is %v", i, answer)
		}
	}
}
