//go:build linux

package taking

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// crash starts a holder whose tree does not want to end, and kills it.
func crash(t testing.TB, s *etcdtest.Server, runDir, key, ttl string, alsoGuard bool) {
	t.Helper()
	args := append([]string{"-e", s.Endpoint(), "-t", ttl, "-k", key, "--"}, programs.StubbornTree...)
	p := programs.Start(t, []string{"XDG_RUNTIME_DIR=" + runDir}, "etcdlocker", args...)
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	if alsoGuard {
		p.Signal(syscall.SIGSTOP) // so that it cannot act between the two
		syscall.Kill(guard, syscall.SIGKILL)
	}
	p.Signal(syscall.SIGKILL)
	p.Code()
	// What a guard leaves that is killed with its etcdlocker is left by the promise: the test ends
	// it.
	if alsoGuard {
		programs.Kill(programs.Marked("ETCD_LOCK_KEY=" + key))
	}
}

const tookOver = "nothing of its command is left: not waiting for its TTL"

// TestTakeover: a killed holder's lock is taken at once by whoever waits on the same machine, or
// comes later.
func TestTakeover(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"waiting": nil, "trying later": {"--try"}, "coming later": {"--wait", "1m"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, runDir := etcdtest.Shared(t), t.TempDir()
			key := "/takeover/" + strings.ReplaceAll(name, " ", "-")
			next := func() *programs.Run {
				words := append([]string{"-e", s.Endpoint(), "-k", key}, args...)
				return programs.Start(t, []string{"XDG_RUNTIME_DIR=" + runDir}, "etcdlocker", append(words, "echo", "ran")...)
			}
			var p *programs.Run
			if name == "waiting" {
				crashing := programs.Start(t, []string{"XDG_RUNTIME_DIR=" + runDir}, "etcdlocker",
					append([]string{"-e", s.Endpoint(), "-t", "300", "-k", key, "--"}, programs.StubbornTree...)...)
				crashing.Says(crashing.Stdout, "ready")
				p = next()
				p.Says(p.Stderr, "place 1 in line")
				crashing.Signal(syscall.SIGKILL)
			} else {
				crash(t, s, runDir, key, "300", false)
				etcdtest.Await(t, "the attestation", func(context.Context) error { return attestations(runDir, 1) })
				p = next()
			}
			before := time.Now()
			if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" || !strings.Contains(p.Stderr.String(), tookOver) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			if took := time.Since(before); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if len(programs.Marked("ETCD_LOCK_KEY="+key)) > 0 {
				t.Error("something of the last command still runs")
			}
			if err := attestations(runDir, 0); err != nil {
				t.Error(err)
			}
			programs.CheckFree(t, s.Client(t), key)
		})
	}
}

// TestTakeoverBehindAMutex: who waits behind a Mutex that waits for a killed holder takes the lock
// from that one all the same, so that both go on at once. A slot may be free meanwhile.
func TestTakeoverBehindAMutex(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string][]string{"exclusive": nil, "shared": {"-s"}, "slots": {"--slots", "2"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, key, ctx := etcdtest.Shared(t), "/takeover/mutex-"+name, etcdtest.Context(t)
			vars := []string{"XDG_RUNTIME_DIR=" + t.TempDir()}
			locks := func(command ...string) *programs.Run {
				words := slices.Concat([]string{"-e", s.Endpoint(), "-k", key, "-t", "60"}, mode, command)
				return programs.Start(t, vars, "etcdlocker", words...)
			}
			holder := locks(untilStopped...)
			holder.Says(holder.Stdout, "runs")
			session, err := concurrency.NewSession(s.Client(t), concurrency.WithTTL(60))
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			mutex, got := concurrency.NewMutex(session, key), make(chan error, 1)
			go func() { got <- mutex.Lock(ctx) }()
			awaitStrangers(t, s.Client(t), key, 1)
			next := locks("echo", "ran")
			next.Says(next.Stderr, "in line")
			holder.Signal(syscall.SIGKILL)
			if err := <-got; err != nil {
				t.Fatalf("the Mutex: %v", err)
			}
			if err := mutex.Unlock(ctx); err != nil {
				t.Fatal(err)
			}
			if code := next.Code(); code != 0 || next.Stdout.String() != "ran\n" || !strings.Contains(next.Stderr.String(), tookOver) {
				t.Errorf("exit code %d, %q", code, next.Stderr)
			}
		})
	}
}

// TestNoTakeover: where nobody can attest that nothing is left, the TTL is waited for.
func TestNoTakeover(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		alsoGuard bool
		spoil     func(t *testing.T, file string)
	}{
		"guard killed as well": {true, nil},
		"half written": {false, func(t *testing.T, file string) {
			if err := os.Truncate(file, 20); err != nil {
				t.Error(err)
			}
		}},
		"of another lease": {false, func(t *testing.T, file string) {
			if err := os.Rename(file, file+"0"); err != nil {
				t.Error(err)
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, runDir := etcdtest.Shared(t), t.TempDir()
			client, key := s.Client(t), "/no-takeover/"+strings.Fields(name)[0]
			crash(t, s, runDir, key, "4", tt.alsoGuard)
			if tt.spoil != nil {
				etcdtest.Await(t, "the attestation", func(context.Context) error { return attestations(runDir, 1) })
				files, _ := filepath.Glob(filepath.Join(runDir, "etcdlock", "dead-*"))
				tt.spoil(t, files[0])
			}
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			cmd := exec.Command(programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key, "echo", "ran")
			p := programs.StartCommand(t, []string{"XDG_RUNTIME_DIR=" + runDir}, cmd)
			if code := p.Code(); code != 0 || strings.Contains(p.Stderr.String(), tookOver) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			if programs.HasLease(t, client, lease) {
				t.Error("the lock was taken from a lease that lives")
			}
		})
	}
}

// attestations returns an error unless there are so many.
func attestations(runDir string, want int) error {
	files, err := filepath.Glob(filepath.Join(runDir, "etcdlock", "dead-*"))
	if err == nil && len(files) != want {
		err = fmt.Errorf("attestations: %v", files)
	}
	return err
}

// TestTakeoverAfterALoss: who has lost its lock in an outage, with nothing of its command left,
// need not be waited for until its TTL is over.
func TestTakeoverAfterALoss(t *testing.T) {
	t.Parallel()
	s, runDir, key := etcdtest.Shared(t), t.TempDir(), "/takeover/lost"
	link := etcdtest.NewLink(t, s.Endpoint())
	vars := []string{"XDG_RUNTIME_DIR=" + runDir}
	holder := programs.Start(t, vars, "etcdlocker", "-v", "-e", link.Endpoint(), "-t", "40", "--grace", "32s", "-r", "0.5", "-k", key, "sleep", "1000")
	holder.Renews(1)
	next := programs.Start(t, vars, "etcdlocker", "-e", s.Endpoint(), "-k", key, "echo", "ran")
	next.Says(next.Stderr, "place 1 in line")
	link.Silence()
	if code := holder.Code(); code != 2 {
		t.Errorf("the holder: exit code %d, %s", code, holder.Stderr)
	}
	if code := next.Code(); code != 0 || next.Stdout.String() != "ran\n" || !strings.Contains(next.Stderr.String(), tookOver) {
		t.Errorf("the next: exit code %d, %s", code, next.Stderr)
	}
	if err := attestations(runDir, 0); err != nil {
		t.Error(err)
	}
	programs.CheckFree(t, s.Client(t), key)
}
