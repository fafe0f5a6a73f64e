package queue

import (
	"errors"

	"github.com/etcdlock/etcdlock/internal/protocol"
)

// ErrStartOver says that the place in line is gone, or that it cannot be known whether there is
// one: another one may be taken at the end of the line.
var ErrStartOver = errors.New("the place in line is gone")

// An EndError says why a contender will not get the lock.
type EndError struct {
	End protocol.End
	Err error // what etcd said
}

// Error says why, in half a sentence.
func (e *EndError) Error() string {
	why := map[protocol.End]string{
		protocol.Cancelled:   "the wait was given up",
		protocol.Busy:        "somebody else is there",
		protocol.Uncertain:   ErrStartOver.Error() + ": outcome unknown",
		protocol.Deleted:     ErrStartOver.Error() + ": deleted from outside",
		protocol.Overwritten: ErrStartOver.Error() + ": overwritten from outside",
		protocol.NoLease:     ErrStartOver.Error(),
		protocol.NoHistory:   ErrStartOver.Error(),
	}[e.End]
	switch {
	case e.Err == nil, e.End == protocol.Deleted, e.End == protocol.Overwritten:
		return why
	case why == "":
		return e.Err.Error()
	}
	return why + ": " + e.Err.Error()
}

// Unwrap returns the error that etcd answered, and ErrStartOver if another place may be taken.
func (e *EndError) Unwrap() []error {
	all := []error{e.Err}
	if e.Err == nil {
		all = nil
	}
	if e.End >= protocol.Uncertain {
		all = append(all, ErrStartOver)
	}
	return all
}
