package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/whoami"
)

// pauser is what the flags of pause say.
type pauser struct {
	connection
	key    string
	reason string
	length time.Duration
	wait   time.Duration // 0: without a limit
}

func newPause() *cobra.Command {
	p := &pauser{}
	cmd := &cobra.Command{
		Use:   "pause KEY --reason TEXT",
		Short: "keep everybody out of a lock for some time",
		Long: `Keeps everybody out of a lock. It waits in line until those who came before have
given the lock back, and returns when nobody has it any more and nobody can take
it, etcd's own Mutex included. It stops no holder: that is what break does.

The pause ends with etcdlockctl resume, whose command line it prints, or by
itself after --for. Who interrupts pause while it waits leaves nothing. One that
is killed while it waits keeps its place until --for has passed, or until
resume.`,
		Example: `  etcdlockctl pause /jobs/nightly --reason "moving the data" --for 2h
  etcdlockctl resume /jobs/nightly --token 48213`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := oneKey("pause", args)
			if err != nil {
				return err
			}
			p.key = key
			if err := p.check(cmd.Flags().Changed("wait")); err != nil {
				return err
			}
			return p.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	p.addFlags(f)
	f.StringVar(&p.reason, "reason", "", "why, for whoever waits meanwhile: 1 to 256 bytes")
	secondsVar(f, &p.length, "for", time.Hour, "when the pause ends by itself, from when it has begun: whole seconds")
	durationVar(f, &p.wait, "wait", 0, "how long to wait for the turn (default: without a limit)")
	return cmd
}

// check refuses what etcd need not be asked about.
func (p *pauser) check(hasWait bool) error {
	switch {
	case p.length < admin.LeastPause || p.length > admin.MostPause || p.length%time.Second != 0:
		return fmt.Errorf("--for: %v is not whole seconds from %v to %v (%w)", p.length, admin.LeastPause, admin.MostPause, errUsage)
	case hasWait && p.wait <= 0:
		return fmt.Errorf("--wait: %v is not a positive time (%w)", p.wait, errUsage)
	}
	return checkReason(p.reason)
}

func (p *pauser) run(ctx context.Context) error {
	client, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	asking, cancel := p.within(ctx)
	defer cancel()
	holders, err := admin.Targets(asking, client, p.key)
	if err != nil {
		return p.explain(asking, err)
	}
	if len(holders) > 0 && holders[0].Pause == nil {
		say("waiting until %s, and all who wait by now", has(holders, "has given the lock back", "have given the lock back"))
	}
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	ctx, stop := signal.NotifyContext(ctx, slices.DeleteFunc(signals, signal.Ignored)...) // nohup
	defer stop()
	context.AfterFunc(ctx, stop) // a second one is not waited for
	if p.wait > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, p.wait, errNotPausedYet)
		defer cancel()
	}
	host, _ := os.Hostname()
	paused, err := admin.Pause(ctx, client, p.key, p.length, admin.Pausing{By: whoami.User(), Host: host, Reason: p.reason}, p.tell())
	if err != nil {
		return p.notPaused(ctx, paused.Token, err)
	}
	say("lock %s is paused until %s; nobody has it", plain.Word(p.key), paused.Until.Local().Format(time.DateTime))
	say("to end that: %s", resumeCommand(p.etcd.Given(), p.key, paused.Token))
	return nil
}

// tell returns what says that the pause waits, how that is ended from elsewhere, and whether etcd
// answers meanwhile.
func (p *pauser) tell() func(admin.PauseEntry, error) {
	waits, away := false, false
	return func(entry admin.PauseEntry, err error) {
		if err != nil {
			sayAway(err, "the pause goes on waiting when it does again")
			away = true
			return
		}
		if away {
			sayBack()
		}
		if !waits {
			say("it waits in line (token %d); to end that: %s", entry.Token, resumeCommand(p.etcd.Given(), p.key, entry.Token))
		}
		waits, away = true, false
	}
}

// errNotPausedYet ends a wait that is too long.
var errNotPausedYet = errors.New("others have the lock, or stand before the pause")

// notPaused adds a way out to why a lock was not paused. The token is that of a pause that was
// there before.
func (p *pauser) notPaused(ctx context.Context, token int64, err error) error {
	show := command("show", p.etcd.Given(), p.key, "")
	switch {
	case errors.Is(err, admin.ErrUnknownOutcome) && errors.Is(err, errNotPausedYet):
		return advise(fmt.Errorf("lock %q was not paused within %v, and etcd does not answer: whether others have the lock, and whether a pause is left, is not known", p.key, p.wait),
			show+" says it when etcd answers again, and how a pause is ended")
	case errors.Is(err, admin.ErrUnknownOutcome):
		return advise(err, show+" says whether a pause is left, and how it is ended")
	case errors.Is(err, admin.ErrPaused):
		return advise(err, "to end that pause: "+resumeCommand(p.etcd.Given(), p.key, token))
	case errors.Is(err, errNotPausedYet):
		return advise(fmt.Errorf("lock %q was not paused within %v: %w", p.key, p.wait, errNotPausedYet),
			show+" says who is there; allow more time with --wait, or ask them to stop with etcdlockctl break")
	case ctx.Err() != nil:
		return fmt.Errorf("lock %q was not paused: interrupted while it waited", p.key)
	}
	return p.explain(ctx, err)
}

// resumeCommand returns what ends a pause.
func resumeCommand(options, key string, token int64) string {
	return command("resume", options, key, fmt.Sprintf(" --token %d", token))
}

// resumer is what the flags of resume say.
type resumer struct {
	connection
	key   string
	token int64 // 0: it is asked for on the terminal
}

func newResume() *cobra.Command {
	r := &resumer{}
	cmd := &cobra.Command{
		Use:   "resume KEY --token N",
		Short: "end a pause",
		Long: `Ends the pause of a lock that has a token, also one that waits for its turn: the
next in line may take the lock at once. It ends no other pause, and never hits a
holder. The exit code is 3 if there is no such pause.

N is what pause and show print. On a terminal --token may be left out.`,
		Example: `  etcdlockctl resume /jobs/nightly --token 48213`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := oneKey("resume", args)
			if err != nil {
				return err
			}
			if err := checkToken(r.token, cmd.Flags().Changed("token"), "pause"); err != nil {
				return err
			}
			if r.key = key; r.token == 0 {
				if err := r.choose(cmd.Context()); err != nil {
					return err
				}
			}
			return r.look(cmd.Context(), r.run)
		},
	}
	f := cmd.Flags()
	r.addFlags(f)
	f.Int64Var(&r.token, "token", 0, "the token of the pause, as pause and show print it")
	return cmd
}

// choose asks on the terminal whether the only pause is meant.
func (r *resumer) choose(ctx context.Context) error {
	var all []admin.PauseEntry
	if err := r.look(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		all, err = admin.Pauses(ctx, client, r.key)
		return err
	}); err != nil {
		return err
	}
	switch len(all) {
	case 0:
		return absentError(fmt.Sprintf("lock %q: nobody has paused it", r.key))
	case 1:
		r.token = all[0].Token
		return retype(r.key, fmt.Sprintf("lock %q: a pause %v (token %d)", r.key, &all[0].Pausing, r.token), "end that", r.token)
	}
	var tokens []string
	for _, p := range all {
		tokens = append(tokens, strconv.FormatInt(p.Token, 10))
	}
	return fmt.Errorf("lock %q has %d pauses: name one with --token (%s) (%w)", r.key, len(all), strings.Join(tokens, ", "), errUsage)
}

func (r *resumer) run(ctx context.Context, client *clientv3.Client) error {
	p, err := admin.Resume(ctx, client, r.key, r.token)
	switch {
	case errors.Is(err, admin.ErrUnknownOutcome):
		return again(err)
	case err != nil:
		return err
	}
	say("ended the pause %v; %s", &p.Pausing, holdersNow(ctx, client, r.key))
	return nil
}
