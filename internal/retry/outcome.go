package retry

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An Outcome is what an error says about the request that it answers.
type Outcome int

// The outcomes.
const (
	// Unknown: it may have been applied, may be applied later, or never.
	Unknown Outcome = iota
	// Refused: etcd said no and will say so again.
	Refused
	// NotNow: etcd did not apply it, and may do so if asked again.
	NotNow
)

// Classify sorts an error of the client. Everything that is not clearly a refusal is an unknown
// outcome.
func Classify(err error) Outcome {
	switch Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.NotFound,
		codes.AlreadyExists, codes.OutOfRange, codes.Unimplemented:
		return Refused
	case codes.ResourceExhausted:
		switch {
		case strings.Contains(err.Error(), "trying to send"+messageTooLarge):
			return Refused
		case IsNoSpace(err), IsTooLarge(err): // a request that etcd has received, or its answer
			return Unknown
		}
		return NotNow
	case codes.FailedPrecondition:
		if errors.Is(err, rpctypes.ErrNotLeader) {
			return NotNow
		}
		return Refused
	}
	return Unknown
}

// Code returns the gRPC code of an error of the client.
func Code(err error) codes.Code {
	var ee rpctypes.EtcdError
	if errors.As(err, &ee) {
		return ee.Code()
	}
	return status.Code(err)
}

// IsRefused reports whether etcd has refused the request for good.
func IsRefused(err error) bool { return Classify(err) == Refused }

// IsNoSpace reports whether etcd says that its space is exceeded. It says so of requests that it
// does not apply, and of the ones with which it notices, which it has applied. Either way that is
// settled when the answer comes. Only writes are answered so.
func IsNoSpace(err error) bool { return errors.Is(err, rpctypes.ErrNoSpace) }

// messageTooLarge is what gRPC says of one that is larger than its limits.
const messageTooLarge = " message larger than max"

// IsTooLarge reports whether a request, or its answer, was too large.
func IsTooLarge(err error) bool {
	return err != nil && (errors.Is(err, rpctypes.ErrRequestTooLarge) || strings.Contains(err.Error(), messageTooLarge))
}

// IsDenied reports whether the user lacks the permission.
func IsDenied(err error) bool { return Code(err) == codes.PermissionDenied }

var errSilent = errors.New("etcd does not answer")

// Told returns what a user is told of tries that have failed. The error is that of the last one, or
// nil as long as none has ended.
func Told(err error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return errSilent
	}
	return err
}
