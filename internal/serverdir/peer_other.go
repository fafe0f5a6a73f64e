//go:build !linux && !darwin

package serverdir

import "errors"

// peerOf is not possible here.
func peerOf(int) (pid int, err error) { return 0, errors.ErrUnsupported }
