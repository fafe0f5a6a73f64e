package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/etcdlock/etcdlock/internal/plain"
)

func newRoles() *cobra.Command {
	return &cobra.Command{
		Use:   "roles PREFIX",
		Short: "print the etcdctl commands that make two roles",
		Long: `Prints the etcdctl commands that make two roles in etcd for the locks whose keys begin with PREFIX: "sees" may list, show
and watch them, "locks" may lock them. Etcd has no right to delete of its own: whoever can lock can break as well. It
asks etcd nothing.`,
		Example: `  etcdlockctl roles /jobs/`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("roles needs one prefix, which may be empty: '' (%w)", errUsage)
			}
			_, err := fmt.Fprintf(os.Stdout, roles, plain.Shell(args[0]))
			return err
		},
	}
}

// roles ends the options of etcdctl before the prefix, which may begin with a dash.
const roles = `# sees: list, show and watch the locks whose keys begin with the prefix.
etcdctl role add sees
etcdctl role grant-permission sees read --prefix -- %[1]s
# locks: lock them, and break them. Etcd has no right to delete of its own: whoever can lock can
# break as well.
etcdctl role add locks
etcdctl role grant-permission locks readwrite --prefix -- %[1]s
# Then give each user one of them:
# etcdctl user add USER
# etcdctl user grant-role USER sees
# etcdctl user grant-role USER locks
`
