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
		Long: `Keeps everybody out of a lock. It waits in line until those who came before have given the lock back, and returns when
nobody has it any more and nobody can take it, etcd's own Mutex included. It stops no holder: that is what break does.

The pause ends with etcdlockctl resume, or by itself after --for. Who interrupts pause while it waits leaves nothing.
One that is killed while it waits keeps its place until --for has passed, or until resume.`,
		Example: `  etcdlockctl pause /jobs/nightly --reason "moving the data" --for 2h
  etcdlockctl resume /jobs/nightly`,
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
	f.DurationVar(&p.length, "for", time.Hour, "when the pause ends by itself, from when it has begun: whole seconds")
	f.DurationVar(&p.wait, "wait", 0, "how long to wait for the turn (default: without a limit)")
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
	paused, err := admin.Pause(ctx, client, p.key, p.length, admin.Pausing{By: whoami.User(), Host: host, Reason: p.reason})
	if err != nil {
		return p.notPaused(ctx, err)
	}
	say("lock %s is paused until %s; nobody has it", plain.Word(p.key), paused.Until.Local().Format(time.DateTime))
	say("to end that: %s", resumeCommand(p.key, paused.Token))
	return nil
}

// errNotPausedYet ends a wait that is too long.
var errNotPausedYet = errors.New("others have the lock, or stand before the pause")

// notPaused adds a way out to why a lock was not paused.
func (p *pauser) notPaused(ctx context.Context, err error) error {
	key := plain.Shell(p.key)
	switch {
	case errors.Is(err, admin.ErrUnknownOutcome):
		return advise(err, "etcdlockctl show "+key+" says whether a pause is left; etcdlockctl resume ends it")
	case errors.Is(err, admin.ErrPaused):
		return advise(err, "etcdlockctl resume "+key+" ends that pause")
	case errors.Is(err, errNotPausedYet):
		return advise(fmt.Errorf("lock %q was not paused within %v: %w", p.key, p.wait, errNotPausedYet),
			"etcdlockctl show "+key+" says who is there; allow more time with --wait, or ask them to stop with etcdlockctl break")
	case ctx.Err() != nil:
		return fmt.Errorf("lock %q was not paused: interrupted while it waited", p.key)
	}
	return p.explain(ctx, err)
}

// resumeCommand returns what ends a pause.
func resumeCommand(key string, token int64) string {
	return fmt.Sprintf("%s resume %s --token %d", program, plain.Shell(key), token)
}

// resumer is what the flags of resume say.
type resumer struct {
	connection
	key   string
	token int64 // 0: of the only pause
}

func newResume() *cobra.Command {
	r := &resumer{}
	cmd := &cobra.Command{
		Use:   "resume KEY",
		Short: "end a pause",
		Long: `Ends a pause of a lock, also one that waits for its turn: the next in line may take the lock at once. With --token it
ends that pause and no other one. It never hits a holder. The exit code is 3 if there is no such pause.`,
		Example: `  etcdlockctl resume /jobs/nightly
  etcdlockctl resume /jobs/nightly --token 48213`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := oneKey("resume", args)
			switch {
			case err != nil:
				return err
			case cmd.Flags().Changed("token") && r.token <= 0:
				return fmt.Errorf("--token: %d is not a token (%w)", r.token, errUsage)
			}
			r.key = key
			return r.look(cmd.Context(), r.run)
		},
	}
	f := cmd.Flags()
	r.addFlags(f)
	f.Int64Var(&r.token, "token", 0, "the token of the pause, as pause and show print it")
	return cmd
}

func (r *resumer) run(ctx context.Context, client *clientv3.Client) error {
	token := r.token
	if token == 0 {
		all, err := admin.Pauses(ctx, client, r.key)
		switch {
		case err != nil:
			return err
		case len(all) == 0:
			return fmt.Errorf("lock %q: %w: nobody has paused it", r.key, admin.ErrNotPaused)
		case len(all) > 1:
			var tokens []string
			for _, p := range all {
				tokens = append(tokens, strconv.FormatInt(p.Token, 10))
			}
			return fmt.Errorf("lock %q has %d pauses: name one with --token (%s) (%w)", r.key, len(all), strings.Join(tokens, ", "), errUsage)
		}
		token = all[0].Token
	}
	p, err := admin.Resume(ctx, client, r.key, token)
	switch {
	case errors.Is(err, admin.ErrUnknownOutcome):
		return again(err)
	case err != nil:
		return err
	}
	say("ended the pause %v; %s", &p.Pausing, holdersNow(ctx, client, r.key))
	return nil
}
