//go:build !linux

package etcdtest

import (
	"os"
	"os/exec"
)

func selfCommand() (*exec.Cmd, error) {
	self, err := os.Executable()
	return exec.Command(self), err
}

// startTied cannot tie cmd to this process here: it survives a test binary that is killed.
func startTied(cmd *exec.Cmd) error { return cmd.Start() }

// awaitStopped trusts that a signal works at once.
func awaitStopped(int) error { return nil }
