package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestExitCodeOfTheCommand(t *testing.T) {
	s := etcdtest.Shared(t)
	for want, script := range map[int]string{0: "exit 0", 7: "exit 7", 143: "kill -TERM $$", 137: "kill -KILL $$"} {
		p := locker(t, s.Endpoint(), "-k", "/code", "--", "sh", "-c", script)
		if got := p.code(); got != want {
			t.Errorf("%s: exit code %d, want %d", script, got, want)
		}
	}
	free(t, s.Client(t), "/code")
}

func TestEnvironmentAndArguments(t *testing.T) {
	s := etcdtest.Shared(t)
	vars := []string{"ETCD_LOCK_HOST=" + s.Endpoint(), "ETCD_LOCK_KEY=/env", "ETCD_LOCK_ID=me", "ETCD_LOCK_TTL=20"}
	p := start(t, vars, "etcdlocker", "printf", "%s\n", "-k", "007", "a  b", "--")
	if p.code() != 0 || p.stdout.String() != "-k\n007\na  b\n--\n" {
		t.Errorf("the command's words came as %q", p.stdout)
	}
	p = start(t, vars, "etcdlocker", "-i", "flag", "--", "sh", "-c", `echo "$ETCD_LOCK_KEY $ETCD_LOCK_ID $ETCD_LOCK_HOST $ETCD_LOCK_REV"`)
	p.code()
	var rev int64
	if _, err := fmt.Sscanf(p.stdout.String(), "/env flag "+s.Endpoint()+" %d\n", &rev); err != nil || rev == 0 {
		t.Errorf("the command's environment: %q, %v", p.stdout, err)
	}
}

func TestStdinIsTheCommands(t *testing.T) {
	s := etcdtest.Shared(t)
	cmd := exec.Command(filepath.Join(programs, "etcdlocker"), "-e", s.Endpoint(), "-k", "/stdin", "cat")
	cmd.Stdin = strings.NewReader("through")
	if out, err := cmd.Output(); err != nil || string(out) != "through" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestKeysOfAllKinds(t *testing.T) {
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
	if code := p.code(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	free(t, client, "/hold")
}

func TestTryAndWait(t *testing.T) {
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
	waiter := locker(t, s.Endpoint(), "-k", "/busy", "--wait", "10m", "echo", "ran")
	waiter.says(waiter.stderr, `waiting for lock "/busy": held by "the-holder" since`)
	waiter.says(waiter.stderr, "place 1 in line")
	holder.signal(syscall.SIGTERM)
	if waiter.code() != 0 || waiter.stdout.String() != "ran\n" {
		t.Errorf("the waiter: %q %q", waiter.stdout, waiter.stderr)
	}
	free(t, client, "/busy")
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

func TestSignalsReachTheCommand(t *testing.T) {
	s := etcdtest.Shared(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		p := locker(t, s.Endpoint(), "-k", "/sig", "--", "sh", "-c", `trap 'echo got; exit 5' TERM INT QUIT HUP; echo ready; while :; do sleep 0.01; done`)
		p.says(p.stdout, "ready")
		p.signal(sig)
		if code := p.code(); code != 128+int(sig) || !strings.Contains(p.stdout.String(), "got") {
			t.Errorf("%v: exit code %d, %q", sig, code, p.stdout)
		}
	}
	p := locker(t, s.Endpoint(), "-k", "/sig", "--", "sh", "-c", `trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done`)
	p.says(p.stdout, "ready")
	p.signal(syscall.SIGUSR1)
	if code := p.code(); code != 6 {
		t.Errorf("USR1: exit code %d", code)
	}
	free(t, s.Client(t), "/sig")
}

func TestStubbornCommand(t *testing.T) {
	s := etcdtest.Shared(t)
	p := locker(t, s.Endpoint(), "-k", "/stubborn", "--kill-after", "0.2", "--", "sh", "-c", `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	p.says(p.stdout, "ready")
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	free(t, s.Client(t), "/stubborn")
}

func TestToldToStopLeavesNothing(t *testing.T) {
	s := etcdtest.Shared(t)
	file := filepath.Join(t.TempDir(), "pid")
	// The shell dies of TERM, its worker in a session of its own does not hear of it.
	p := locker(t, s.Endpoint(), "-k", "/tree", "--grace", "0.3", "--", "sh", "-c",
		`setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.01; done' `+file+` & echo ready; wait`)
	worker := content(t, file)
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	gone(t, worker)
	free(t, s.Client(t), "/tree")
}

func TestOrphans(t *testing.T) {
	s := etcdtest.Shared(t)
	script := func(file string) string {
		return `setsid sh -c 'echo $$ > "$0"; while [ ! -e "$0.end" ]; do sleep 0.01; done' ` + file + ` > /dev/null 2>&1 & while [ ! -s ` + file + ` ]; do sleep 0.01; done`
	}
	t.Run("leave", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		p := locker(t, s.Endpoint(), "-k", "/orphan/leave", "--", "sh", "-c", script(file))
		if code := p.code(); code != 0 || !strings.Contains(p.stderr.String(), "(pid "+content(t, file)+")") {
			t.Errorf("exit code %d, %q", code, p.stderr)
		}
		free(t, s.Client(t), "/orphan/leave")
		os.WriteFile(file+".end", nil, 0o600)
		gone(t, content(t, file))
	})
	t.Run("kill", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		p := locker(t, s.Endpoint(), "-k", "/orphan/kill", "--orphans=kill", "--", "sh", "-c", script(file))
		if code := p.code(); code != 0 {
			t.Errorf("exit code %d, %q", code, p.stderr)
		}
		gone(t, content(t, file))
	})
	t.Run("wait", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		p := locker(t, s.Endpoint(), "-k", "/orphan/wait", "--orphans=wait", "--", "sh", "-c", script(file)+"; echo main-ended")
		p.says(p.stdout, "main-ended")
		held(t, s.Client(t), "/orphan/wait")
		os.WriteFile(file+".end", nil, 0o600)
		if code := p.code(); code != 0 {
			t.Errorf("exit code %d, %q", code, p.stderr)
		}
		free(t, s.Client(t), "/orphan/wait")
	})
}

// TestLost: whatever takes the lock away, the whole tree is dead before the end, and the code is 2.
func TestLost(t *testing.T) {
	tests := map[string]func(ctx context.Context, c *clientv3.Client, key string) error{
		"deleted": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Delete(ctx, key)
			return err
		},
		"overwritten": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Put(ctx, key, "x")
			return err
		},
		"lease revoked": func(ctx context.Context, c *clientv3.Client, key string) error {
			resp, err := c.Get(ctx, key)
			if err == nil {
				_, err = c.Revoke(ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
			}
			return err
		},
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, key := s.Client(t), "/lost/"+name
			file := filepath.Join(t.TempDir(), "pid")
			p := locker(t, s.Endpoint(), "-k", key, "-t", "30", "--grace", "0.3", "--", "sh", "-c",
				`setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.01; done' `+file+` & trap '' TERM; while :; do sleep 0.01; done`)
			worker := content(t, file)
			if err := do(etcdtest.Context(t), client, key); err != nil {
				t.Fatal(err)
			}
			if code := p.code(); code != 2 {
				t.Errorf("exit code %d", code)
			}
			gone(t, worker)
			if !strings.Contains(p.stderr.String(), "etcdlocker: error: lock ") || !strings.Contains(p.stderr.String(), "etcdlocker: hint: ") {
				t.Errorf("it says %q", p.stderr)
			}
		})
	}
}

// TestSilence: etcd falls silent; the stubborn command is dead before etcd frees the lock.
func TestSilence(t *testing.T) {
	for name, fault := range map[string]func(*etcdtest.Link){"silent": (*etcdtest.Link).Silence, "refused": (*etcdtest.Link).Refuse} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			link, client, key := etcdtest.NewLink(t, s.Endpoint()), s.Client(t), "/silence/"+name
			file := filepath.Join(t.TempDir(), "beat")
			p := locker(t, link.Endpoint(), "-k", key, "-t", "4", "--", "sh", "-c", `trap '' TERM; echo $$ > `+file+`; while :; do sleep 0.01; done`)
			pid := content(t, file)
			lease := held(t, client, key).Kvs[0].Lease
			fault(link)
			if code := p.code(); code != 2 {
				t.Errorf("exit code %d: %s", code, p.stderr)
			}
			gone(t, pid)
			resp, err := client.TimeToLive(etcdtest.Context(t), clientv3.LeaseID(lease))
			if err != nil {
				t.Fatal(err)
			}
			if resp.TTL < 0 {
				t.Error("the lease had run out before the command was dead")
			}
		})
	}
}

func TestEndsWhileEtcdIsDown(t *testing.T) {
	s := etcdtest.Shared(t)
	link := etcdtest.NewLink(t, s.Endpoint())
	file := filepath.Join(t.TempDir(), "go")
	p := locker(t, link.Endpoint(), "-k", "/down", "-t", "60", "--", "sh", "-c", `while [ ! -e `+file+` ]; do sleep 0.01; done; exit 4`)
	held(t, s.Client(t), "/down")
	link.Silence()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := p.code(); code != 4 || !strings.Contains(p.stderr.String(), "frees itself") {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
}

func TestNotReached(t *testing.T) {
	refused, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused.Close()
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
	for name, l := range map[string]net.Listener{"refused": refused, "mute": mute, "not etcd": http} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := locker(t, l.Addr().String(), "-k", "/x", "--connect-timeout", "1s", "echo", "ran")
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
	s, mutual := etcdtest.Start(t, etcdtest.WithTLS()), etcdtest.Start(t, etcdtest.WithClientCerts())
	if p := locker(t, mutual.Endpoint(), "--cacert", mutual.Certs().CA, "--cert", mutual.Certs().Cert, "--cert-key", mutual.Certs().Key,
		"-k", "/tls", "true"); p.code() != 0 {
		t.Errorf("with a certificate of our own: %s", p.stderr)
	}
	if p := locker(t, s.Endpoint(), "--cacert", s.Certs().CA, "-k", "/tls", "true"); p.code() != 0 {
		t.Errorf("with the right authority: %s", p.stderr)
	}
	p := locker(t, s.Endpoint(), "--cacert", s.Certs().StrangeCA, "--connect-timeout", "1s", "-k", "/tls", "true")
	if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "certificate") {
		t.Errorf("with the wrong authority: exit code %d, %q", code, p.stderr)
	}
}

func TestNestedOnItsOwnLock(t *testing.T) {
	s := etcdtest.Shared(t)
	p := locker(t, s.Endpoint(), "-k", "/nested", "--", filepath.Join(programs, "etcdlocker"), "echo", "ran")
	if code := p.code(); code != 1 || p.stdout.String() != "" || !strings.Contains(p.stderr.String(), "already held") {
		t.Errorf("exit code %d, %q %q", code, p.stdout, p.stderr)
	}
	p = locker(t, s.Endpoint(), "-k", "/nested", "--", filepath.Join(programs, "etcdlocker"), "-k", "/nested/other", "echo", "ran")
	if code := p.code(); code != 0 || p.stdout.String() != "ran\n" {
		t.Errorf("another lock: exit code %d, %q", code, p.stderr)
	}
	free(t, s.Client(t), "/nested")
}

func TestHoldAtLeast(t *testing.T) {
	s := etcdtest.Shared(t)
	p := locker(t, s.Endpoint(), "-k", "/least", "--hold-at-least", "1s", "echo", "ran")
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

func TestScriptWithoutInterpreter(t *testing.T) {
	s := etcdtest.Shared(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo ran\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := locker(t, s.Endpoint(), "-k", "/noexec", script)
	if code := p.code(); code != 3 || !strings.Contains(p.stderr.String(), "#!/bin/sh") {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
	free(t, s.Client(t), "/noexec")
}

// TestPID1: as the first process of a container it reaps what falls to it, and passes on signals and codes.
func TestPID1(t *testing.T) {
	if err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
		if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
			t.Fatalf("unshare does not work: %v", err)
		}
		t.Skipf("needs unshare and the right to use it: %v", err)
	}
	s := etcdtest.Shared(t)
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", filepath.Join(programs, "etcdlocker"),
		"-e", s.Endpoint(), "-k", "/pid1", "--", "sh", "-c", `for i in 1 2 3; do (sleep 0.01 &) ; done; sleep 0.2; ps -eo stat= | grep -c Z; exit 9`)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 9 || string(out) != "0\n" {
		t.Errorf("%q, %v", out, err)
	}
	free(t, s.Client(t), "/pid1")
}

func TestEmbeddedAndTenAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	t.Cleanup(func() { exec.Command(filepath.Join(programs, "etcdlockctl"), "serve", "--stop", "--dir", dir).Run() })
	counter := filepath.Join(t.TempDir(), "turns")
	round := func() {
		var all []*program
		for range 10 {
			all = append(all, start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/ten", "--", "sh", "-c",
				`set -C; : > `+counter+`.lock || exit 9; echo turn >> `+counter+`; rm `+counter+`.lock`))
		}
		started := 0
		for _, p := range all {
			if code := p.code(); code != 0 {
				t.Errorf("exit code %d, %q", code, p.stderr)
			}
			started += strings.Count(p.stderr.String(), "started etcd in")
		}
		if started != 1 {
			t.Errorf("%d servers were started, want one", started)
		}
	}
	round()
	pid := content(t, filepath.Join(dir, "lock"))
	var n int
	fmt.Sscan(pid, &n)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	round()
	if turns, err := os.ReadFile(counter); err != nil || strings.Count(string(turns), "\n") != 20 {
		t.Errorf("%d turns, %v", strings.Count(string(turns), "\n"), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
	if p := start(t, nil, "etcdlockctl", "serve", "--dir", dir); p.code() != 75 || !strings.Contains(p.stderr.String(), "another server") {
		t.Errorf("a second server: %d, %q", p.code(), p.stderr)
	}
	if p := start(t, nil, "etcdlockctl", "serve", "--stop", "--dir", dir); p.code() != 0 {
		t.Errorf("--stop: %s", p.stderr)
	}
	if p := start(t, nil, "etcdlockctl", "serve", "--stop", "--dir", dir); p.code() != 1 {
		t.Errorf("--stop without a server: %d", p.code())
	}
}
