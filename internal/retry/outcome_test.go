package retry

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestClassify: only what was certainly not applied is said to be that. Who has received a message
// that is too large, etcd a request or the client an answer, is not in the error.
func TestClassify(t *testing.T) {
	exhausted := func(says string) error { return status.Error(codes.ResourceExhausted, says) }
	for _, tt := range []struct {
		err  error
		want Outcome
	}{
		{rpctypes.ErrPermissionDenied, Refused},
		{rpctypes.ErrRequestTooLarge, Refused},
		{exhausted("trying to send message larger than max (2867923 vs. 2097152)"), Refused},
		{exhausted("grpc: received message larger than max (2867923 vs. 2097152)"), Unknown},
		{rpctypes.ErrNoSpace, Unknown},
		{rpctypes.ErrTooManyRequests, NotNow},
		{rpctypes.ErrNotLeader, NotNow},
		{rpctypes.ErrTimeout, Unknown},
		{errors.New("other"), Unknown},
	} {
		if got := Classify(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}
