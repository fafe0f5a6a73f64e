//go:build linux

package scenarios

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestKeysOfAllKinds(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	for _, key := range []string{"with space", `quo"te'`, "new\nline", "no\xffutf8", strings.Repeat("k", 4096), "/", "-k"} {
		p := locker(t, s.Endpoint(), "-k", key, "--conflict-exit-code", "9", "--", "sh", "-c", `printf %s "$ETCD_LOCK_KEY"`)
		if p.code() != 0 || p.stdout.String() != key {
			t.Errorf("key %.20q: %q, %q", key, p.stdout, p.stderr)
		}
		holder := locker(t, s.Endpoint(), "-k", key)
		held(t, client, key)
		p = locker(t, s.Endpoint(), "-k", key, "--try", "true")
		if code := p.code(); code != 1 {
			t.Errorf("key %.20q: exit code %d", key, code)
		}
		if lines := strings.Count(p.stderr.String(), "\n"); lines != 2 {
			t.Errorf("key %.20q: %d lines of messages: %s", key, lines, p.stderr)
		}
		holder.signal(syscall.SIGTERM)
		holder.code()
		free(t, client, key)
	}
}

func TestHoldWithoutACommand(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	p := locker(t, s.Endpoint(), "-k", "/hold", "-i", "me")
	resp := held(t, client, "/hold")
	if string(resp.Kvs[0].Value) != "me" {
		t.Errorf("the key's value is %q", resp.Kvs[0].Value)
	}
	p.says(p.stdout, fmt.Sprintf("/hold %d\n", resp.Kvs[0].ModRevision))
	p.signal(syscall.SIGINT)
	if code := p.code(); code != 130 || p.said() != "etcdlocker: error: stopped by SIGINT; lock \"/hold\" is released\n" {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
	free(t, client, "/hold")
}

// TestAlarmWhileWaiting: an alarm that was set before etcdlocker was executed ends it, and its
// place in line is removed.
func TestAlarmWhileWaiting(t *testing.T) {
	s, key := etcdtest.Shared(t), "/alarm"
	locker(t, s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	for _, sig := range []syscall.Signal{syscall.SIGALRM, syscall.SIGABRT} {
		p := locker(t, s.Endpoint(), "-k", key, "true")
		p.says(p.stderr, "place 1 in line")
		if sig == syscall.SIGABRT {
			passesRare(t, p)
		}
		p.signal(sig)
		if code := p.code(); code != 128+int(sig) || !strings.Contains(p.stderr.String(), "stopped by "+unix.SignalName(sig)+" while waiting") {
			t.Errorf("exit code %d, %q", code, p.stderr)
		}
		if n := len(etcdtest.Keys(t, s.Client(t), key+"/")); n != 1 {
			t.Errorf("%d places in line, want the holder's alone", n)
		}
	}
}

// TestLineIsToldLater: who waits while etcd does not say who holds the lock is told so, and the
// rest when etcd does.
func TestLineIsToldLater(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/later"
	locker(t, s.Endpoint(), "-k", key, "-i", "first")
	held(t, s.Client(t), key)
	gate := etcdtest.NewGate(t, s.Endpoint())
	var tells atomic.Bool
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		txn, ok := message.(*pb.TxnRequest) // what it says is read at once, K and then the line
		if ok && len(txn.Compare) == 0 && len(txn.Success) > 1 && txn.Success[1].GetRequestRange().GetRangeEnd() != nil && !tells.Load() {
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	p := locker(t, gate.Endpoint(), "-k", key, "true")
	p.says(p.stderr, `waiting for lock "/later": etcd does not answer at the moment`)
	tells.Store(true)
	p.says(p.stderr, `waiting for lock "/later": held by "first"`)
	p.signal(syscall.SIGTERM)
	p.code()
	if n := strings.Count(p.stderr.String(), "does not answer"); n != 1 {
		t.Errorf("it is said %d times: %s", n, p.stderr)
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
		p := locker(t, s.Endpoint(), "-k", key, "--try", "true")
		waiter := locker(t, s.Endpoint(), "-k", key, "true")
		waiter.says(waiter.stderr, "held by ")
		if code := p.code(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		for _, said := range []string{p.stderr.String(), waiter.stderr.String()} {
			if len(said) > 1000 || strings.ContainsAny(said, "\u009b\u202e\a\x1b") {
				t.Errorf("it says %.2000q", said)
			}
		}
		waiter.signal(syscall.SIGTERM)
		waiter.code()
	}
	if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
}

func TestTryAndWait(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	holder := locker(t, s.Endpoint(), "-k", "/busy", "-i", "the-holder")
	held(t, client, "/busy")
	for _, args := range [][]string{{"--try"}, {"--wait", "0.2"}, {"--wait", "0"}} {
		for _, code := range []int{1, 75} {
			words := append([]string{"-k", "/busy", "--conflict-exit-code", fmt.Sprint(code)}, args...)
			p := locker(t, s.Endpoint(), append(words, "echo", "ran")...)
			if got := p.code(); got != code {
				t.Errorf("%v: exit code %d, want %d", args, got, code)
			}
			if p.stdout.String() != "" {
				t.Errorf("%v: the command ran", args)
			}
		}
	}
	late := regexp.MustCompile(`error: acquiring lock "/busy": not acquired within [0-9]+s \(last seen: held by "the-holder" since `)
	for wait := 1; ; wait *= 2 { // on a busy machine it may not have seen the line before
		p := locker(t, s.Endpoint(), "-k", "/busy", "--wait", fmt.Sprint(wait), "true")
		if p.code(); late.MatchString(p.stderr.String()) {
			break
		} else if wait > 8 {
			t.Fatalf("--wait: %q", p.stderr)
		}
	}
	waiter := locker(t, s.Endpoint(), "-k", "/busy", "--wait", "10m", "echo", "ran")
	waiter.says(waiter.stderr, `waiting for lock "/busy": held by "the-holder" since`)
	waiter.says(waiter.stderr, "place 1 in line")
	holder.signal(syscall.SIGTERM)
	if waiter.code() != 0 || waiter.stdout.String() != "ran\n" {
		t.Errorf("the waiter: %q %q", waiter.stdout, waiter.stderr)
	}
	free(t, client, "/busy")
}

// saysBusy reports whether a program has said that the lock is held. What it says of a slow machine
// or etcd is another matter.
func saysBusy(p *program) bool {
	return regexp.MustCompile(`held|waiting for|error: |hint: `).MatchString(p.said())
}

// TestBusyIsFine: with 0 as the code for it, a lock that is held is not worth a word.
func TestBusyIsFine(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/busy-is-fine"
	locker(t, s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	for _, args := range [][]string{{"--try"}, {"--wait", "0.5"}, {"--wait", "0"}} {
		args = append(args, "-k", key, "--conflict-exit-code", "0", "echo", "ran")
		if p := locker(t, s.Endpoint(), args...); p.code() != 0 || p.stdout.String() != "" || saysBusy(p) {
			t.Errorf("%q: exit code %d, %q %q", args, p.code(), p.stdout, p.stderr)
		}
		if p := locker(t, s.Endpoint(), append([]string{"-v"}, args...)...); p.code() != 0 || !saysBusy(p) {
			t.Errorf("-v %q: exit code %d, %q", args, p.code(), p.stderr)
		}
	}
	p := locker(t, "127.0.0.1:1", "-k", key, "--try", "--conflict-exit-code", "0", "--connect-timeout", "0.5", "echo", "ran")
	if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "did not answer") {
		t.Errorf("no etcd: exit code %d, %q", code, p.stderr)
	}
}

func TestSignalWhileWaiting(t *testing.T) {
	s := etcdtest.Shared(t)
	holder := locker(t, s.Endpoint(), "-k", "/sigwait")
	held(t, s.Client(t), "/sigwait")
	waiter := locker(t, s.Endpoint(), "-k", "/sigwait", "true")
	waiter.says(waiter.stderr, "waiting")
	waiter.signal(syscall.SIGTERM)
	if code := waiter.code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	holder.signal(syscall.SIGTERM)
	holder.code()
	free(t, s.Client(t), "/sigwait")
}

func TestHoldAtLeast(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := locker(t, s.Endpoint(), "-k", "/least", "--hold-at-least", "8s", "echo", "ran")
	p.says(p.stdout, "ran")
	if code := locker(t, s.Endpoint(), "-k", "/least", "--try", "true").code(); code != 1 {
		t.Errorf("the lock was free before its time: exit code %d", code)
	}
	before := time.Now()
	if code := p.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if time.Since(before) > time.Minute {
		t.Error("it was held for far too long")
	}
	free(t, s.Client(t), "/least")
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
			p := locker(t, addr, "-k", "/x", "--connect-timeout", "1s", "echo", "ran")
			if code := p.code(); code != 1 || p.stdout.String() != "" || !strings.Contains(p.stderr.String(), "did not answer within 1s") {
				t.Errorf("exit code %d, %q %q", code, p.stdout, p.stderr)
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
	run := func(vars []string, args ...string) *program {
		return start(t, vars, "etcdlocker", append([]string{"-e", s.Endpoint(), "--connect-timeout", "3s"}, args...)...)
	}
	if p := run(nil, "--user", "worker", "--password-file", file, "-k", "/mine", "echo", "ran"); p.code() != 0 {
		t.Errorf("with the right password: %s", p.stderr)
	}
	if p := run([]string{"ETCDCTL_USER=worker:right"}, "-k", "/mine", "echo", "ran"); p.code() != 0 {
		t.Errorf("with etcdctl's variable: %s", p.stderr)
	}
	for name, p := range map[string]*program{
		"wrong password": run([]string{"ETCDCTL_USER=worker", "ETCDCTL_PASSWORD=wrong"}, "-k", "/mine", "echo", "ran"),
		"foreign key":    run([]string{"ETCDCTL_USER=worker:right"}, "-k", "/other", "echo", "ran"),
		"nobody":         run(nil, "-k", "/mine", "echo", "ran"),
	} {
		if code := p.code(); code != 1 || p.stdout.String() != "" || !strings.Contains(p.stderr.String(), "check user and password") {
			t.Errorf("%s: exit code %d, %q", name, code, p.stderr)
		}
		if strings.Contains(p.stderr.String(), "wrong\"") {
			t.Errorf("%s: it shows the password", name)
		}
	}
	free(t, s.Client(t), "/mine")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s, mutual := etcdtest.Start(t, etcdtest.WithTLS()), etcdtest.Start(t, etcdtest.WithClientCerts())
	if p := locker(t, mutual.Endpoint(), "--cacert", mutual.Certs().CA, "--cert", mutual.Certs().Cert, "--cert-key", mutual.Certs().Key,
		"-k", "/tls", "true"); p.code() != 0 {
		t.Errorf("with a certificate of our own: %s", p.stderr)
	}
	if p := locker(t, s.Endpoint(), "--cacert", s.Certs().CA, "-k", "/tls", "true"); p.code() != 0 {
		t.Errorf("with the right authority: %s", p.stderr)
	}
	for name, vars := range map[string][]string{"nobody": nil, "a user": {"ETCDCTL_USER=worker:pass"}} {
		p := start(t, vars, "etcdlocker", "-e", s.Endpoint(), "--cacert", s.Certs().StrangeCA, "--connect-timeout", "1s", "-k", "/tls", "true")
		if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "certificate signed by unknown authority") {
			t.Errorf("with the wrong authority, %s: exit code %d, %q", name, code, p.stderr)
		}
	}
}
