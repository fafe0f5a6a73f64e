// Command etcdlockctl looks after locks on etcd.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/buildinfo"
	"github.com/etcdlock/etcdlock/internal/endpoint"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/serverdir"
)

// program is what this is called.
const program = "etcdlockctl"

// Exit codes beside 0.
const (
	exitFailed  = 1
	exitNothing = 3 // nothing is there, or not any more
	exitUsage   = 64
)

// errUsage marks what the user got wrong.
var errUsage = errors.New("see etcdlockctl help")

// An adviceError has a hint.
type adviceError struct {
	error
	hint string
}

func advise(err error, hint string) error { return &adviceError{err, hint} }

func (e *adviceError) Unwrap() error { return e.error }

// An absentError says that what was asked for is not there.
type absentError string

func (e absentError) Error() string { return string(e) }

// about is the beginning of the help.
const about = `Looks after distributed locks on etcd.

Etcd is found as etcdlocker finds it: by -e behind a command, by ETCD_LOCK_HOST,
and by the variables of etcdctl (ETCDCTL_ENDPOINTS and others); else it is at
localhost:2379. The help of each command lists all options.`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := &cobra.Command{
		Use:           program,
		Short:         "look after distributed locks on etcd",
		Long:          about,
		Version:       buildinfo.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd, root.SuggestionsMinimumDistance = true, 2
	cobra.AddTemplateFunc("flagUsages", flagUsages)
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), ".LocalFlags.FlagUsages", "flagUsages .LocalFlags", 1))
	root.Flags().Bool("version", false, "the version") // cobra's own would take -v for it
	root.SetFlagErrorFunc(badFlag)
	root.AddCommand(newList(), newShow(), newWatch(), newBreak(), newPause(), newResume(), newRoles(), newServe())
	err := execute(root, args)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errNothing) { // which was said already
		fmt.Fprintln(os.Stderr, "etcdlockctl: error:", plain.Line(plain.Reason(err.Error())))
	}
	var option *endpoint.OptionError
	var advice *adviceError
	var absent absentError
	if errors.As(err, &advice) {
		hint(advice.hint)
	}
	switch {
	case errors.As(err, &option):
		hint(option.Hint)
		return exitUsage
	case errors.Is(err, errNothing), errors.Is(err, admin.ErrNotHolder), errors.Is(err, admin.ErrNotPaused), errors.As(err, &absent):
		return exitNothing
	case errors.Is(err, serverdir.ErrBusy):
		return serverdir.BusyExit
	case errors.Is(err, serverdir.ErrUnusable):
		hint(serverdir.NameAnother + "; that of another user is for that user")
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitFailed
}

// execute executes the command that the arguments name. An unknown one is seen before its options,
// of which --help would hide it.
func execute(root *cobra.Command, args []string) error {
	root.InitDefaultHelpCmd()
	name := args
	if len(args) > 0 && args[0] == "help" {
		name = args[1:]
	}
	if cmd, _, err := root.Find(name); err == nil && cmd == root && len(name) > 0 && !strings.HasPrefix(name[0], "-") {
		return unknownCommand(root, name[0])
	}
	root.SetArgs(args)
	return root.Execute()
}

// badFlag returns the error of a flag that is not one, or has a wrong value.
func badFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	isUnknown := errors.As(err, &unknown)
	if err = fmt.Errorf("%w (%w)", err, errUsage); !isUnknown {
		return err
	}
	way := cmd.CommandPath() + " --help lists the options"
	if !cmd.HasParent() {
		way = "an option stands behind its command, as in " + program + " list --embedded"
	}
	if _, operand, takesOne := strings.Cut(cmd.Use, " "); takesOne {
		name, _, _ := strings.Cut(strings.Trim(operand, "[]"), " ")
		way += fmt.Sprintf("; a %s that begins with - goes after --, as in %s -- %s", name, cmd.CommandPath(), name)
	}
	return advise(err, way)
}

// unknownCommand says that there is no such command, and which one may be meant.
func unknownCommand(root *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q (%w)", name, errUsage)
	if like := root.SuggestionsFor(name); len(like) > 0 {
		return advise(err, "is "+program+" "+strings.Join(like, ", or ")+" meant?")
	}
	return err
}

// hint says what the user can do.
func hint(text string) { fmt.Fprintln(os.Stderr, "etcdlockctl: hint:", plain.Line(text)) }
