// Package whoami says which user runs a program. The library does not import it: a program with cgo
// may ask a directory service for the name, which can take long.
package whoami

import (
	"os"
	"os/user"
	"strconv"
)

// User returns the name of the user, or the number if the name is not known.
func User() string {
	u, err := user.Current()
	if err != nil {
		return strconv.Itoa(os.Getuid())
	}
	return u.Username
}
