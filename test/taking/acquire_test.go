//go:build linux

package taking

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

func TestKeysOfAllKinds(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	for _, key := range []string{"with space", `quo"te'`, "new\nline", "no\xffutf8", strings.Repeat("k", 4096), "/", "-k", "--try", "--"} {
		p := programs.Locker(t, s.Endpoint(), "--key="+key, "--conflict-exit-code", "9", "--", "sh", "-c", `printf %s "$ETCD_LOCK_KEY"`)
		if p.Code() != 0 || p.Stdout.String() != key {
			t.Errorf("key %.20q: %q, %q", key, p.Stdout, p.Stderr)
		}
		holder := programs.Locker(t, s.Endpoint(), "-k"+key)
		programs.AwaitHeld(t, client, key)
		p = programs.Locker(t, s.Endpoint(), "--key="+key, "--try", "true")
		if code := p.Code(); code != 1 {
			t.Errorf("key %.20q: exit code %d", key, code)
		}
		if lines := strings.Count(p.Stderr.String(), "\n"); lines != 2 {
			t.Errorf("key %.20q: %d lines of messages: %s", key, lines, p.Stderr)
		}
		holder.Signal(syscall.SIGTERM)
		holder.Code()
		programs.CheckFree(t, client, key)
	}
}

func TestHoldWithoutACommand(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/hold", "-i", "me")
	resp := programs.AwaitHeld(t, client, "/hold")
	if string(resp.Kvs[0].Value) != "me" {
		t.Errorf("the key's value is %q", resp.Kvs[0].Value)
	}
	p.Says(p.Stdout, fmt.Sprintf("/hold %d\n", resp.Kvs[0].ModRevision))
	p.Signal(syscall.SIGINT)
	if code := p.Code(); code != 130 || p.Said() != "etcdlocker: error: stopped by SIGINT; lock \"/hold\" is released\n" {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, client, "/hold")
}

// TestLineIsToldLater: who waits while etcd does not say who holds the lock is told so, and the
// rest when etcd does.
func TestLineIsToldLater(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/later"
	programs.Locker(t, s.Endpoint(), "-k", key, "-i", "first")
	programs.AwaitHeld(t, s.Client(t), key)
	gate := etcdtest.NewGate(t, s.Endpoint())
	var tells atomic.Bool
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		txn, ok := message.(*pb.TxnRequest) // what it says is read at once, K and then the line
		if ok && len(txn.Compare) == 0 && len(txn.Success) > 1 && txn.Success[1].GetRequestRange().GetRangeEnd() != nil && !tells.Load() {
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	p := programs.Locker(t, gate.Endpoint(), "-k", key, "true")
	p.Says(p.Stderr, `waiting for lock "/later": etcd does not answer at the moment`)
	tells.Store(true)
	p.Says(p.Stderr, `waiting for lock "/later": held by "first"`)
	p.Signal(syscall.SIGTERM)
	p.Code()
	if n := strings.Count(p.Stderr.String(), "does not answer"); n != 1 {
		t.Errorf("it is said %d times: %s", n, p.Stderr)
	}
}

// TestValueOfOthers: a value that somebody has put into the lock key is shown in part, and cannot
// control a terminal.
func TestValueOfOthers(t *testing.T) {
	s, key := etcdtest.Shared(t), "/value"
	client := s.Client(t)
	for _, value := range []string{strings.Repeat("x", 1_000_000), "h\u009b31mX\u202eevil\a\x1b]0;t\a"} {
		if _, err := client.Put(etcdtest.Context(t), key, value); err != nil {
			t.Fatal(err)
		}
		p := programs.Locker(t, s.Endpoint(), "-k", key, "--try", "true")
		waiter := programs.Locker(t, s.Endpoint(), "-k", key, "true")
		waiter.Says(waiter.Stderr, "held by ")
		if code := p.Code(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		for _, said := range []string{p.Stderr.String(), waiter.Stderr.String()} {
			if len(said) > 1000 || strings.ContainsAny(said, "\u009b\u202e\a\x1b") {
				t.Errorf("it says %.2000q", said)
			}
		}
		waiter.Signal(syscall.SIGTERM)
		waiter.Code()
	}
	if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
}

func TestTryAndWait(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", "/busy", "-i", "the-holder")
	programs.AwaitHeld(t, client, "/busy")
	for _, args := range [][]string{{"--try"}, {"--wait", "0.2"}, {"--wait", "0"}} {
		for _, code := range []int{1, 75} {
			words := append([]string{"-k", "/busy", "--conflict-exit-code", fmt.Sprint(code)}, args...)
			p := programs.Locker(t, s.Endpoint(), append(words, "echo", "ran")...)
			if got := p.Code(); got != code {
				t.Errorf("%v: exit code %d, want %d", args, got, code)
			}
			if p.Stdout.String() != "" {
				t.Errorf("%v: the command ran", args)
			}
		}
	}
	late := regexp.MustCompile(`error: acquiring lock "/busy": not acquired within [0-9]+s \(last seen: held by "the-holder" since `)
	for wait := 1; ; wait *= 2 { // on a busy machine it may not have seen the line before
		p := programs.Locker(t, s.Endpoint(), "-k", "/busy", "--wait", fmt.Sprint(wait), "true")
		if p.Code(); late.MatchString(p.Stderr.String()) {
			break
		} else if wait > 8 {
			t.Fatalf("--wait: %q", p.Stderr)
		}
	}
	waiter := programs.Locker(t, s.Endpoint(), "-k", "/busy", "--wait", "10m", "echo", "ran")
	waiter.Says(waiter.Stderr, `waiting for lock "/busy": held by "the-holder" since`)
	waiter.Says(waiter.Stderr, "place 1 in line")
	holder.Signal(syscall.SIGTERM)
	if waiter.Code() != 0 || waiter.Stdout.String() != "ran\n" {
		t.Errorf("the waiter: %q %q", waiter.Stdout, waiter.Stderr)
	}
	programs.CheckFree(t, client, "/busy")
}

// saysBusy reports whether a program has said that the lock is held. What it says of a slow machine
// or etcd is another matter.
func saysBusy(p *programs.Run) bool {
	return regexp.MustCompile(`held|waiting for|error: |hint: `).MatchString(p.Said())
}

// TestBusyIsFine: with 0 as the code for it, a lock that is held is not worth a word.
func TestBusyIsFine(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/busy-is-fine"
	programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	for _, args := range [][]string{{"--try"}, {"--wait", "0.5"}, {"--wait", "0"}} {
		args = append(args, "-k", key, "--conflict-exit-code", "0", "echo", "ran")
		if p := programs.Locker(t, s.Endpoint(), args...); p.Code() != 0 || p.Stdout.String() != "" || saysBusy(p) {
			t.Errorf("%q: exit code %d, %q %q", args, p.Code(), p.Stdout, p.Stderr)
		}
		if p := programs.Locker(t, s.Endpoint(), append([]string{"-v"}, args...)...); p.Code() != 0 || !saysBusy(p) {
			t.Errorf("-v %q: exit code %d, %q", args, p.Code(), p.Stderr)
		}
	}
	p := programs.Locker(t, "127.0.0.1:1", "-k", key, "--try", "--conflict-exit-code", "0", "--connect-timeout", "0.5", "echo", "ran")
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "did not answer") {
		t.Errorf("no etcd: exit code %d, %q", code, p.Stderr)
	}
}

// TestSilentWhileWaiting: that a lock is held is not known of an etcd that does not answer any more
// when --wait is over: it is said, and the code is another one.
func TestSilentWhileWaiting(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/silent-while-waiting"
	programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	for _, keys := range [][]string{{"-k", key}, programs.Keys(key, "/silent-while-waiting-too")} {
		link := etcdtest.NewLink(t, s.Endpoint())
		p := programs.Locker(t, link.Endpoint(), append(keys, "-v", "-t", "4", "--wait", "3", "--conflict-exit-code", "0", "echo", "ran")...)
		p.Says(p.Stderr, "place 1 in line")
		link.Silence()
		begun := time.Now()
		code := p.Code()
		const asks, slack = 6 * time.Second, 3 * time.Second // beyond --wait, see the changelog
		if took := time.Since(begun); took > 3*time.Second+asks+slack {
			t.Errorf("it takes %v", took)
		}
		if code != 1 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), "not acquired within 3s (last seen: ") ||
			!strings.Contains(p.Stderr.String(), "and then etcd did not answer") || !strings.Contains(p.Stderr.String(), "hint: check that etcd runs") ||
			strings.Contains(p.Stderr.String(), "connect-timeout") {
			t.Errorf("exit code %d, %q %q", code, p.Stdout, p.Stderr)
		}
		link.Restore()
		etcdtest.Await(t, "its place to go", func(context.Context) error {
			if places := etcdtest.Keys(t, s.Client(t), key+"/"); len(places) != 1 {
				return fmt.Errorf("there are %d", len(places))
			}
			return nil
		})
	}
}

// TestHolderEndsInSilence: the holder has ended while etcd was silent, which answers again when
// --wait is over. Then nobody is known to hold the lock: the code is not the one for that.
func TestHolderEndsInSilence(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for i, after := range []time.Duration{0, 200 * time.Millisecond, time.Second, 1800 * time.Millisecond, 3500 * time.Millisecond} {
		for _, conflict := range []string{"0", "7"} {
			t.Run(fmt.Sprint(after, " with code ", conflict), func(t *testing.T) {
				t.Parallel()
				key := fmt.Sprint("/ends-in-silence/", i, conflict)
				holder := programs.Locker(t, s.Endpoint(), "-k", key)
				programs.AwaitHeld(t, s.Client(t), key)
				link := etcdtest.NewLink(t, s.Endpoint())
				begun := time.Now()
				p := programs.Locker(t, link.Endpoint(), "-k", key, "-v", "--wait", "10", "--conflict-exit-code", conflict, "echo", "ran")
				p.Says(p.Stderr, "place 1 in line")
				link.Silence()
				holder.Signal(syscall.SIGTERM)
				holder.Code()
				time.Sleep(time.Until(begun.Add(10*time.Second + after)))
				link.Restore()
				code, ran := p.Code(), p.Stdout.String() == "ran\n"
				if said := p.Stderr.String(); ran != (code == 0) || !ran && (code != 1 || !strings.Contains(said, ", and then ")) {
					t.Errorf("exit code %d, %q %q", code, p.Stdout, said)
				}
			})
		}
	}
}

func TestSignalWhileWaiting(t *testing.T) {
	s := etcdtest.Shared(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", "/sigwait")
	programs.AwaitHeld(t, s.Client(t), "/sigwait")
	waiter := programs.Locker(t, s.Endpoint(), "-k", "/sigwait", "true")
	waiter.Says(waiter.Stderr, "waiting")
	waiter.Signal(syscall.SIGTERM)
	if code := waiter.Code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	programs.CheckFree(t, s.Client(t), "/sigwait")
}

func TestHoldAtLeast(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/least", "--hold-at-least", "8s", "echo", "ran")
	p.Says(p.Stdout, "ran")
	if code := programs.Locker(t, s.Endpoint(), "-k", "/least", "--try", "true").Code(); code != 1 {
		t.Errorf("the lock was free before its time: exit code %d", code)
	}
	before := time.Now()
	if code := p.Code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if time.Since(before) > time.Minute {
		t.Error("it was held for far too long")
	}
	programs.CheckFree(t, s.Client(t), "/least")
}

func TestNotReached(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp4", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	http, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer http.Close()
	go func() {
		for {
			c, err := http.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	for name, addr := range map[string]string{"refused": "127.0.0.1:1", "mute": mute.Addr().String(), "not etcd": http.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := programs.Locker(t, addr, "-k", "/x", "--connect-timeout", "1s", "echo", "ran")
			if code := p.Code(); code != 1 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), "did not answer within 1s") || strings.Contains(p.Stderr.String(), "desc =") {
				t.Errorf("exit code %d, %q %q", code, p.Stdout, p.Stderr)
			}
		})
	}
}

func TestAuthentication(t *testing.T) {
	s := etcdtest.Start(t)
	s.AddUser(t, "worker", "right", "/mine")
	s.EnableAuth(t, "root-password")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(vars []string, args ...string) *programs.Run {
		return programs.Start(t, vars, "etcdlocker", append([]string{"-e", s.Endpoint(), "--connect-timeout", "1m"}, args...)...)
	}
	if p := run(nil, "--user", "worker", "--password-file", file, "-k", "/mine", "echo", "ran"); p.Code() != 0 {
		t.Errorf("with the right password: %s", p.Stderr)
	}
	if p := run([]string{"ETCDCTL_USER=worker:right"}, "-k", "/mine", "echo", "ran"); p.Code() != 0 {
		t.Errorf("with etcdctl's variable: %s", p.Stderr)
	}
	for hint, p := range map[string]*programs.Run{
		"check the user and the password":     run([]string{"ETCDCTL_USER=worker", "ETCDCTL_PASSWORD=wrong"}, "-k", "/mine", "echo", "ran"),
		"the user needs to read and write":    run([]string{"ETCDCTL_USER=worker:right"}, "-k", "/other", "echo", "ran"),
		"--user with --password-file, or ETC": run(nil, "-k", "/mine", "echo", "ran"),
	} {
		if code := p.Code(); code != 1 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), "hint: ") || !strings.Contains(p.Stderr.String(), hint) {
			t.Errorf("exit code %d, %q, not %s", code, p.Stderr, hint)
		}
		if strings.Contains(p.Stderr.String(), "wrong\"") {
			t.Errorf("%s: it shows the password", p.Stderr)
		}
	}
	programs.CheckFree(t, s.Client(t), "/mine")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s, mutual := etcdtest.Start(t, etcdtest.WithTLS()), etcdtest.Start(t, etcdtest.WithClientCerts())
	if p := programs.Locker(t, mutual.Endpoint(), "--cacert", mutual.Certs().CA, "--cert", mutual.Certs().Cert, "--cert-key", mutual.Certs().Key,
		"-k", "/tls", "true"); p.Code() != 0 {
		t.Errorf("with a certificate of our own: %s", p.Stderr)
	}
	if p := programs.Locker(t, s.Endpoint(), "--cacert", s.Certs().CA, "-k", "/tls", "true"); p.Code() != 0 {
		t.Errorf("with the right authority: %s", p.Stderr)
	}
	for name, vars := range map[string][]string{"nobody": nil, "a user": {"ETCDCTL_USER=worker:pass"}} {
		p := programs.Start(t, vars, "etcdlocker", "-e", s.Endpoint(), "--cacert", s.Certs().StrangeCA, "--connect-timeout", "1s", "-k", "/tls", "true")
		if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "certificate signed by unknown authority") {
			t.Errorf("with the wrong authority, %s: exit code %d, %q", name, code, p.Stderr)
		}
	}
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	for hint, args := range map[string][]string{
		"--cacert names the authority":   {"-e", s.Endpoint(), "--cacert", s.Certs().StrangeCA},
		"is not etcd's port for clients": {"-e", web.URL},
	} {
		p := programs.Start(t, nil, "etcdlocker", append(args, "--connect-timeout", "3s", "-k", "/tls", "true")...)
		if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "hint: ") || !strings.Contains(p.Stderr.String(), hint) {
			t.Errorf("exit code %d, %q, not %s", code, p.Stderr, hint)
		}
	}
}
