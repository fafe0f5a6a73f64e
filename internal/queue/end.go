package queue

import (
	"errors"

	"github.com/etcdlock/etcdlock/internal/message"
)

// ErrStartOver says that the place in line is gone, or that it cannot be known whether there is
// one: another one may be taken at the end of the line.
var ErrStartOver = errors.New(message.NoLease.String())

// An EndError says why a contender will not get the lock.
type EndError struct {
	End message.End
	Err error // what etcd said
}

// Error says why, in half a sentence.
func (e *EndError) Error() string {
	switch why := e.End.String(); {
	case e.Err == nil, e.End == message.Deleted, e.End == message.Overwritten:
		return why
	case why == "":
		return e.Err.Error()
	default:
		return why + ": " + e.Err.Error()
	}
}

// Unwrap returns the error that etcd answered, and ErrStartOver if another place may be taken.
func (e *EndError) Unwrap() []error {
	all := []error{e.Err}
	if e.Err == nil {
		all = nil
	}
	if e.End >= message.Uncertain {
		all = append(all, ErrStartOver)
	}
	return all
}

// IsBusy reports whether an error of Acquire says that somebody else is there.
func IsBusy(err error) bool { return ended(err, message.Busy) }

// IsOtherKind reports whether an error of Acquire says that the line is of another kind.
func IsOtherKind(err error) bool { return ended(err, message.OtherKind) }

func ended(err error, with message.End) bool {
	var end *EndError
	return errors.As(err, &end) && end.End == with
}
