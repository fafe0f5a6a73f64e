package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcdlock/etcdlock/internal/plain"
)

func newRoles() *cobra.Command {
	return &cobra.Command{
		Use:   "roles PREFIX",
		Short: "print the etcdctl commands that make two roles",
		Long: `Prints the etcdctl commands that make two roles in etcd for the locks whose keys
begin with PREFIX: "sees" may list, show and watch them, "locks" may lock them.
Etcd has no right to delete of its own: whoever can lock can break as well. It
asks etcd nothing.`,
		Example: `  etcdlockctl roles /jobs/`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("roles needs one prefix, which may be empty: '' (%w)", errUsage)
			}
			_, err := fmt.Fprintf(os.Stdout, roles, plain.Shell(args[0]), beyond(args[0]))
			return err
		},
	}
}

// beyond warns, in a comment, of a prefix that covers more than what is below one key.
func beyond(prefix string) string {
	if prefix == "" || strings.HasSuffix(prefix, "/") {
		return ""
	}
	return fmt.Sprintf("# The prefix covers all keys that begin with it, such as %s.\n", plain.Shell(prefix+"-2"))
}

// roles ends the options of etcdctl before the prefix, which may begin with a dash. Who has a role
// of that name already does not get the prefix as well.
const roles = `%[2]s# A role that is there already stays as it is. For a second prefix name other roles, or give it to
# all who have these: run the grant-permission lines alone.
# sees: list, show and watch the locks whose keys begin with the prefix.
etcdctl role add sees &&
etcdctl role grant-permission sees read --prefix -- %[1]s
# locks: lock, break and pause them. Etcd has no right to delete of its own: whoever can lock can
# break as well.
etcdctl role add locks &&
etcdctl role grant-permission locks readwrite --prefix -- %[1]s
# Then give each user one of them:
# etcdctl user add USER
# etcdctl user grant-role USER sees
# etcdctl user grant-role USER locks
`
