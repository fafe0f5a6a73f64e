//go:build unix && !linux

package guard

// New returns a command. There is no guard on this system.
func New(path string, args []string) (Command, error) { return Unguarded(path, args), nil }
