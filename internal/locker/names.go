package locker

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// Bounds of what a lock is called by.
const (
	MaxKeyBytes = 4096
	MaxIDBytes  = 256

	maxCommandBytes = 4096
)

func checkCommand(command string) error {
	if len(command) > maxCommandBytes {
		return fmt.Errorf("the Command has %d bytes, %d are the most", len(command), maxCommandBytes)
	}
	return nil
}

// CheckNames refuses what cannot be a key, or an id.
func CheckNames(key, id string) error {
	switch {
	case key == "":
		return errors.New("the lock's key is empty")
	case len(key) > MaxKeyBytes:
		return fmt.Errorf("the lock's key has %d bytes, %d are the most", len(key), MaxKeyBytes)
	case wire.ReservedEnd(key) != "":
		return fmt.Errorf("the lock's key %q ends in %s, which is kept for another lock's line: choose another end", key, wire.ReservedEnd(key))
	case len(id) > MaxIDBytes:
		return fmt.Errorf("the holder's id has %d bytes, %d are the most", len(id), MaxIDBytes)
	case !utf8.ValidString(id):
		return fmt.Errorf("the holder's id %q is not UTF-8", id)
	}
	return nil
}
