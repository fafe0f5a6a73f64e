//go:build linux

package scenarios

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// playNotifier sends signs for five seconds, and ends with code 9. It does not return if it is the
// role.
func playNotifier(role string) {
	if role != "notifies" {
		return
	}
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	text, err := strconv.Unquote(cmp.Or(os.Getenv("NOTIFY_TEXT"), `"WATCHDOG=1"`))
	if err != nil {
		panic(err)
	}
	for range 10 {
		if _, err := conn.Write([]byte(text)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		time.Sleep(500 * time.Millisecond)
	}
	os.Exit(9)
}

// notifiers are programs that send signs for five seconds, and end with code 9.
var notifiers = map[string][]string{
	"python3": {"-c", `
import os, socket, sys, time
name = os.environ["NOTIFY_SOCKET"]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("\0" + name[1:] if name[0] == "@" else name)
s.sendall(b"READY=1\nSTATUS=Ready to serve")
assert os.environ["WATCHDOG_USEC"] == "3000000" and "WATCHDOG_PID" not in os.environ
for i in range(10):
    time.sleep(0.5)
    s.sendall(b"STATUS=turn %d\nWATCHDOG=1" % i)
sys.exit(9)`},
	"sh": {"-c", `systemd-notify --ready --status="in a shell"; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; systemd-notify WATCHDOG=1; done; exit 9`},
	"go": nil, // this program
}

// TestWatchdog: programs in several languages are heard, at a path and in the abstract namespace.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	s, self := etcdtest.Shared(t), reachable(t)
	places := map[string][]string{"path": nil, "abstract": {"XDG_RUNTIME_DIR=", "TMPDIR=/proc"}}
	for name, words := range notifiers {
		for place, vars := range places {
			t.Run(name+"/"+place, func(t *testing.T) {
				t.Parallel()
				command, needs := append([]string{name}, words...), name
				switch name {
				case "sh":
					needs = "systemd-notify"
				case "go":
					command, needs = []string{self}, "true"
				}
				if _, err := exec.LookPath(needs); err != nil {
					etcdtest.Missing(t, needs)
				}
				key := "/watchdog/" + name + "/" + place
				vars := append([]string{roleVariable + "=notifies", "WATCHDOG_PID=1", "NOTIFY_SOCKET=/run/systemd/notify"}, vars...)
				p := programs.Start(t, vars, "etcdlocker", append([]string{"-v", "-e", s.Endpoint(), "-t", "20", "--watchdog", "3", "-k", key, "--"}, command...)...)
				if code := p.Code(); code != 9 {
					t.Errorf("exit code %d, %s%s", code, p.Stdout, p.Stderr)
				}
				if name == "python3" && !strings.Contains(p.Stderr.String(), `STATUS=Ready to serve`) {
					t.Errorf("its status is not shown: %s", p.Stderr)
				}
				programs.CheckFree(t, s.Client(t), key)
			})
		}
	}
}

// TestWatchdogBites: commands that are not well are ended, and nothing is left of them, nor of the
// socket.
func TestWatchdogBites(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	if _, err := exec.LookPath("systemd-notify"); err != nil {
		etcdtest.Missing(t, "systemd-notify")
	}
	// As long as validity lasts the release is tried: also on a busy machine.
	for name, tt := range map[string]struct{ script, says string }{
		"never":          {`:`, "sent neither READY=1 nor WATCHDOG=1 within 5s"},
		"ready, alone":   {`systemd-notify --ready`, "did not send WATCHDOG=1 for 1s"},
		"no more":        {`systemd-notify WATCHDOG=1; sleep 0.5; systemd-notify WATCHDOG=1`, "did not send WATCHDOG=1 for 1s"},
		"nothing more":   {`systemd-notify WATCHDOG=1; systemd-notify STATUS=busy; sleep 0.7; systemd-notify --ready`, "did not send WATCHDOG=1 for 1s"},
		"nothing of use": {`systemd-notify WATCHDOG=yes`, "(other notifications: "},
		"trigger":        {`systemd-notify --ready --status="db gone"; systemd-notify WATCHDOG=trigger`, "(WATCHDOG=trigger): db gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := "/watchdog/" + strings.ReplaceAll(name, " ", "-")
			dir, ttl := t.TempDir(), "60"
			if name == "never" { // that is how long it has
				ttl = "5"
			}
			p := programs.Start(t, []string{"XDG_RUNTIME_DIR=" + dir}, "etcdlocker", "-e", s.Endpoint(), "-t", ttl, "--grace", "0.2", "--watchdog", "1s", "-k", key, "--",
				"sh", "-c", `trap '' TERM; `+tt.script+`; while :; do sleep 0.05; done`)
			if code := p.Code(); code != 4 || !strings.Contains(p.Stderr.String(), tt.says) || !strings.Contains(p.Stderr.String(), "etcdlocker: hint: ") {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			programs.AwaitTreeEnd(t, key)
			programs.CheckFree(t, s.Client(t), key)
			if left, _ := filepath.Glob(dir + "/etcdlock/*"); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestLineEndsOfSigns: signs count however their lines end.
func TestLineEndsOfSigns(t *testing.T) {
	t.Parallel()
	s, self := etcdtest.Shared(t), reachable(t)
	for i, text := range []string{"WATCHDOG=trigger\r\n", "STATUS=gone\rWATCHDOG=trigger", "WATCHDOG=trigger\x00"} {
		vars := []string{roleVariable + "=notifies", "NOTIFY_TEXT=" + strconv.Quote(text)}
		p := programs.Start(t, vars, "etcdlocker", "-e", s.Endpoint(), "-t", "20", "--watchdog", "20", "-k", fmt.Sprintf("/watchdog/ends-%d", i), "--", self)
		if code := p.Code(); code != 4 || !strings.Contains(p.Stderr.String(), "not well (WATCHDOG=trigger)") {
			t.Errorf("%q: exit code %d, %q", text, code, p.Stderr)
		}
	}
}

// TestStrangersAreIgnored: another user's datagrams are no signs. At a path they do not even
// arrive.
func TestStrangersAreIgnored(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	s, self := etcdtest.Shared(t), reachable(t)
	for place, tt := range map[string]struct {
		vars []string
		says string
	}{
		"path":     {nil, "within 8s; "},
		"abstract": {[]string{"XDG_RUNTIME_DIR=", "TMPDIR=/proc"}, "notifications of other users: 10, ignored"},
	} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			key := "/watchdog/strangers/" + place
			p := programs.Start(t, tt.vars, "etcdlocker", "-e", s.Endpoint(), "-t", "8", "--watchdog", "8", "-k", key, "--", "sh", "-c", `echo "$NOTIFY_SOCKET"; exec sleep 1000`)
			p.Says(p.Stdout, "\n")
			stranger := exec.Command(self)
			stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: programs.Nobody, Gid: programs.Nobody}}
			q := programs.StartCommand(t, []string{roleVariable + "=notifies", "NOTIFY_SOCKET=" + strings.TrimSpace(p.Stdout.String())}, stranger)
			if code := q.Code(); (code == 9) != (place == "abstract") {
				t.Errorf("the stranger's exit code is %d, %q", code, q.Stdout)
			}
			if code := p.Code(); code != 4 || !strings.Contains(p.Stderr.String(), tt.says) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
		})
	}
}

// TestInheritedSocket: what systemd gives to etcdlocker is the command's, but for the process id,
// which would be wrong.
func TestInheritedSocket(t *testing.T) {
	s := etcdtest.Shared(t)
	vars := []string{"NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=5", "WATCHDOG_PID=1"}
	for _, unguarded := range [][]string{nil, {"--unguarded"}} {
		p := programs.Start(t, vars, "etcdlocker", append(append([]string{"-e", s.Endpoint(), "-k", "/inherited"}, unguarded...), "sh", "-c", `echo "$NOTIFY_SOCKET $WATCHDOG_USEC ${WATCHDOG_PID-none}"`)...)
		if code := p.Code(); code != 0 || p.Stdout.String() != "/run/x 5 none\n" {
			t.Errorf("%v: exit code %d, %q", unguarded, code, p.Stdout)
		}
	}
}

// TestPulseCommand: a second command says whether the first one is well.
func TestPulseCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, tt := range []struct {
		name, pulse, script string
		code                int
		says                string
	}{
		{"well", `true`, `sleep 1; exit 6`, 6, ""},
		{"slow to start", `[ -e up ]`, `sleep 1; touch up; sleep 1; exit 6`, 6, ""},
		{"never well", `echo refused; exit 3`, `sleep 1000`, 4, "did not succeed within 5s of the start; at last it ended with exit code 3: refused"},
		{"no longer well", `[ ! -e down ] || { echo first; echo last >&2; exit 3; }`, `sleep 1; touch down; sleep 1000`, 4, "the pulse command ended with exit code 3: last"},
		{"dies", `[ ! -e down ] || kill -9 $$`, `sleep 1; touch down; sleep 1000`, 4, "the pulse command died of signal 9"},
		{"hangs", `trap "" TERM; sleep 1000; true`, `sleep 1000`, 4, "the pulse command did not end within 5s"},
		{"leaves something behind", `[ ! -e pid ] || ! kill -0 $(cat pid) || exit 9; setsid sleep 1000 & echo $! > pid`, `sleep 3; exit 6`, 6, ""},
		{"has groups of its own", `touch up; setsid sleep 1000 & timeout 1000 sleep 1000; true`, `until [ -e up ]; do sleep 0.05; done; exit 6`, 6, ""},
		{"fails as the command ends", `[ ! -e down ]`, `sleep 0.5; touch down; sleep 0.5; exit 6`, 6, ""},
		{"sees what it has left", `true`, `sleep 1000 & sleep 0.5; exit 6`, 6, "the command left sleep"},
		{"says a lot", `head -c 3000000 /dev/zero | tr "\0" "a"; [ ! -e down ]`, `sleep 1; touch down; sleep 1000`, 4, "aaaa... (4096 bytes)"},
		{"runs when the command ends", `touch up; trap "" TERM; sleep 1000; true`, `until [ -e up ]; do sleep 0.05; done; exit 6`, 6, ""},
		{"knows its command", `[ "$ETCD_LOCK_PID" = "$(cat pid)" ] && [ "$ETCD_LOCK_KEY" = "/pulse/knows-its-command" ] && ! read x && touch seen`,
			`echo $$ > pid; until [ -e seen ]; do sleep 0.05; done; exit 6`, 6, ""},
		{"has its signals", `sh -c 'kill -TERM $$'; [ $? = 143 ] && touch seen`, `until [ -e seen ]; do sleep 0.05; done; exit 6`, 6, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key := "/pulse/" + strings.ReplaceAll(tt.name, " ", "-")
			cmd := exec.Command(programs.Path("etcdlocker"), "-e", s.Endpoint(), "-t", "5", "-r", "0.2", "--grace", "0.2", "--pulse-cmd", tt.pulse, "-k", key, "--", "sh", "-c", tt.script)
			cmd.Dir = t.TempDir()
			p := programs.StartCommand(t, nil, cmd)
			code, said := p.Code(), p.Said()
			if code != tt.code || !strings.Contains(said, tt.says) || tt.says == "" && said != "" {
				t.Errorf("exit code %d, %q", code, said)
			}
			if left := programs.Running("ETCD_LOCK_KEY=" + key); tt.name == "sees what it has left" {
				programs.Kill(left)
			} else if len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			programs.CheckFree(t, s.Client(t), key)
		})
	}
}

// TestPulseCommandIsGuarded: it ends with everything else, whoever is killed.
func TestPulseCommandIsGuarded(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for hand, uid := range programs.Users() {
		for _, victim := range []string{"etcdlocker", "guard", "both"} {
			t.Run(hand+"/"+victim, func(t *testing.T) {
				t.Parallel()
				client, key, dir := s.Client(t), "/pulse/guarded/"+hand+"/"+victim, programs.OpenDir(t)
				p := programs.LockerOf(t, uid, nil, s.Endpoint(), "-t", "300", "-k", key, "--pulse-cmd", `trap "" TERM; setsid sleep 1001 & touch `+dir+`/up; sleep 1001; true`, "sleep", "1000")
				etcdtest.Await(t, "the pulse command", func(context.Context) error {
					if _, err := os.Stat(dir + "/up"); err != nil {
						return err
					}
					if n := len(programs.Marked("ETCD_LOCK_KEY=" + key)); n < 4 {
						return fmt.Errorf("only %d processes", n)
					}
					return nil
				})
				lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
				victims := map[string][]int{"etcdlocker": {p.Cmd.Process.Pid}, "guard": {programs.GuardOf(t, p)}, "both": {p.Cmd.Process.Pid, programs.GuardOf(t, p)}}[victim]
				if victim == "both" {
					// Or it would end the rest.
					if err := syscall.Kill(victims[0], syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				}
				for i := len(victims) - 1; i >= 0; i-- {
					if err := syscall.Kill(victims[i], syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
				if victim == "both" {
					// The command and the check themselves; what they have started is not promised.
					etcdtest.Await(t, "the command and the check to end", func(context.Context) error {
						left := programs.Marked("ETCD_LOCK_KEY=" + key)
						for _, dir := range left {
							if words, _ := os.ReadFile(dir + "/cmdline"); string(words) != "sleep\x001001\x00" {
								return fmt.Errorf("running: %v", left)
							}
						}
						programs.Kill(left)
						return nil
					})
				} else {
					programs.AwaitTreeEnd(t, key)
				}
				if victim == "guard" {
					if code := p.Code(); code != 137 {
						t.Errorf("exit code %d, %q", code, p.Stderr)
					}
					return
				}
				// Nobody else is to wait for the lease.
				if _, err := client.Revoke(etcdtest.Context(t), clientv3.LeaseID(lease)); err != nil {
					t.Errorf("the lease had run out before: %v", err)
				}
			})
		}
	}
}

// TestPulseCommandStandsStill: a check that is made while the command stands still may fail.
func TestPulseCommandStandsStill(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	dir := t.TempDir()
	cmd := exec.Command(programs.Path("etcdlocker"), "-e", s.Endpoint(), "-v", "-t", "20", "-r", "0.2", "-k", "/pulse/still", "--pulse-cmd",
		`[ -e still ] || exit 0; touch asked; sleep 3; exit 3`, "--", "sh", "-c", `touch up; until [ -e end ]; do sleep 0.05; done; exit 6`)
	cmd.Dir = dir
	p := programs.StartCommand(t, nil, cmd)
	p.Says(p.Stderr, "pulse command ended=")
	programs.Create(t, filepath.Join(dir, "still"))
	etcdtest.Await(t, "a check", func(context.Context) error {
		_, err := os.Stat(filepath.Join(dir, "asked"))
		return err
	})
	p.Signal(syscall.SIGTSTP)
	stopped(t, p.Cmd.Process.Pid, true)
	if err := os.Remove(filepath.Join(dir, "still")); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGCONT)
	p.Says(p.Stderr, "exit code 3")
	p.Renews(10) // longer than a command is given to end by itself
	programs.Create(t, filepath.Join(dir, "end"))
	if code := p.Code(); code != 6 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestToldToStopUnhealthy: after that a check may fail and a program may be busy, but not without
// end.
func TestToldToStopUnhealthy(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		args   []string
		script string
		code   int
		says   string
	}{
		"a check fails":           {[]string{"--pulse-cmd", `[ ! -e down ]`}, `trap 'touch down; sleep 3; exit 0' TERM`, 143, "stopped by SIGTERM"},
		"a check never went well": {[]string{"--pulse-cmd", `false`}, `trap 'sleep 6; exit 0' TERM`, 143, "stopped by SIGTERM"},
		"and then one hangs": {[]string{"--pulse-cmd", `[ ! -e down ] || { touch down2; [ ! -e down3 ] || sleep 1000; exit 3; }; [ ! -e well ] || touch second; touch well`},
			`trap 'touch down; until [ -e down2 ]; do sleep 0.05; done; touch down3' TERM; until [ -e second ]; do sleep 0.05; done`, 4, "told to stop by SIGTERM, the pulse command did not end"},
		"no more signs":      {[]string{"--watchdog", "2"}, `trap 'sleep 3; exit 0' TERM; systemd-notify WATCHDOG=1`, 143, "stopped by SIGTERM"},
		"no more signs ever": {[]string{"--watchdog", "2"}, `trap '' TERM; systemd-notify WATCHDOG=1`, 4, "told to stop by SIGTERM, the command did not send WATCHDOG=1 for 4s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := "/pulse/told/" + strings.ReplaceAll(name, " ", "-")
			cmd := exec.Command(programs.Path("etcdlocker"), append(append([]string{"-e", s.Endpoint(), "-t", "4", "-r", "0.2", "--grace", "0.2", "-k", key}, tt.args...),
				"--", "sh", "-c", tt.script+`; echo ready; while :; do sleep 0.05; done`)...)
			cmd.Dir = t.TempDir()
			p := programs.StartCommand(t, nil, cmd)
			p.Says(p.Stdout, "ready")
			p.Signal(syscall.SIGTERM)
			if code := p.Code(); code != tt.code || !strings.Contains(p.Stderr.String(), tt.says) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			programs.AwaitTreeEnd(t, key)
			programs.CheckFree(t, s.Client(t), key)
		})
	}
}

// TestChecker: what runs checks is not needed by anybody else. While it hangs the guard does its
// work, and when it is killed the command is not known to be well.
func TestChecker(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for name, sig := range map[string]syscall.Signal{"hangs": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, key := s.Client(t), "/pulse/checker/"+name
			p := programs.Locker(t, s.Endpoint(), "-v", "-t", "60", "-r", "0.2", "-k", key, "--pulse-cmd", "true", "sleep", "1000")
			p.Says(p.Stderr, "pulse command ended=")
			for pid, dir := range programs.Marked("ETCD_LOCK_KEY=" + key) {
				words, err := os.ReadFile(dir + "/cmdline")
				if err != nil || !strings.HasPrefix(string(words), "etcdlocker-pulse") {
					continue
				}
				err = syscall.Kill(pid, sig)
				if err != nil {
					t.Error(err)
				}
			}
			if name == "hangs" {
				lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
				p.Signal(syscall.SIGKILL)
				programs.AwaitTreeEnd(t, key)
				if _, err := client.Revoke(etcdtest.Context(t), clientv3.LeaseID(lease)); err != nil {
					t.Errorf("the lease had run out before: %v", err)
				}
			} else if code := p.Code(); code != 4 || !strings.Contains(p.Stderr.String(), "etcdlocker-pulse was killed") {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
		})
	}
}

// TestSocketOfAKilledLocker: the next one removes it.
func TestSocketOfAKilledLocker(t *testing.T) {
	s := etcdtest.Shared(t)
	dir := t.TempDir()
	sockets := func() []string {
		names, err := filepath.Glob(dir + "/etcdlock/notify-*")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	locker := func(script string) *programs.Run {
		return programs.Start(t, []string{"XDG_RUNTIME_DIR=" + dir}, "etcdlocker", "-e", s.Endpoint(), "-t", "2", "--watchdog", "2", "-k", "/socket", "sh", "-c", script)
	}
	p := locker("echo ready; sleep 1000")
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGKILL)
	p.Code()
	if len(sockets()) != 1 {
		t.Fatal("no socket is left, so there is nothing to test")
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(sockets()[0], old, old); err != nil {
		t.Fatal(err)
	}
	if code := locker("true").Code(); code != 0 || len(sockets()) != 0 {
		t.Errorf("exit code %d, left: %q", code, sockets())
	}
}
