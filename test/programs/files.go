//go:build linux

package programs

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// AwaitFile waits until a command has written a line into a file, and returns what is in there,
// without the space around it.
func AwaitFile(t testing.TB, file string) string {
	t.Helper()
	var s string
	etcdtest.Await(t, file, func(context.Context) error {
		b, err := os.ReadFile(file)
		if err == nil && !bytes.HasSuffix(b, []byte("\n")) {
			err = io.ErrUnexpectedEOF
		}
		s = strings.TrimSpace(string(b))
		return err
	})
	return s
}

// UntilFile returns a command that runs until a file is there, and then ends with code 4.
func UntilFile(file string) []string {
	return []string{"sh", "-c", `echo started; while [ ! -e ` + file + ` ]; do sleep 0.05; done; exit 4`}
}

// Create makes an empty file, which a command may wait for.
func Create(t testing.TB, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
