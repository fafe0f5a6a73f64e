//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/alive"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestAlarmWhileWaiting: an alarm that was set before etcdlocker was executed ends it, and its
// place in line is removed.
func TestAlarmWhileWaiting(t *testing.T) {
	s, key := etcdtest.Shared(t), "/alarm"
	programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	for _, sig := range []syscall.Signal{syscall.SIGALRM, syscall.SIGABRT} {
		p := programs.Locker(t, s.Endpoint(), "-k", key, "true")
		p.Says(p.Stderr, "place 1 in line")
		if sig == syscall.SIGABRT {
			passesRare(t, p)
		}
		p.Signal(sig)
		if code := p.Code(); code != 128+int(sig) || !strings.Contains(p.Stderr.String(), "stopped by "+unix.SignalName(sig)+" while waiting") {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
		if n := len(etcdtest.Keys(t, s.Client(t), key+"/")); n != 1 {
			t.Errorf("%d places in line, want the holder's alone", n)
		}
	}
}

func TestExitCodeOfTheCommand(t *testing.T) {
	s := etcdtest.Shared(t)
	// The TTL rides out an etcd whose disk stands still for some seconds.
	for want, script := range map[int]string{0: "exit 0", 7: "exit 7", 143: "kill -TERM $$", 137: "kill -KILL $$"} {
		p := programs.Locker(t, s.Endpoint(), "-t", "60", "-k", "/code", "--", "sh", "-c", script)
		if got := p.Code(); got != want {
			t.Errorf("%s: exit code %d, want %d", script, got, want)
		}
		t.Logf("%s: it says %q", script, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/code")
}

func TestEnvironmentAndArguments(t *testing.T) {
	s := etcdtest.Shared(t)
	vars := []string{"ETCD_LOCK_HOST=" + s.Endpoint(), "ETCD_LOCK_KEY=/env", "ETCD_LOCK_ID=me", "ETCD_LOCK_TTL=20"}
	p := programs.Start(t, vars, "etcdlocker", "printf", "%s\n", "-k", "007", "a  b", "--")
	if p.Code() != 0 || p.Stdout.String() != "-k\n007\na  b\n--\n" {
		t.Errorf("the command's words came as %q", p.Stdout)
	}
	p = programs.Start(t, vars, "etcdlocker", "-i", "flag", "--", "sh", "-c", `echo "$ETCD_LOCK_KEY $ETCD_LOCK_ID $ETCD_LOCK_HOST $ETCD_LOCK_REV"
		echo "$ETCDLOCK_HELD_KEY $ETCDLOCK_HELD_ID $ETCDLOCK_HELD_ENDPOINTS $ETCDLOCK_HELD_REV"`)
	p.Code()
	var rev, held int64
	line := "/env flag " + s.Endpoint() + " %d\n"
	if _, err := fmt.Sscanf(p.Stdout.String(), line+line, &rev, &held); err != nil || rev == 0 || held != rev {
		t.Errorf("the command's environment: %q, %v", p.Stdout, err)
	}
}

func TestStdinIsTheCommands(t *testing.T) {
	s := etcdtest.Shared(t)
	cmd := exec.Command(programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/stdin", "cat")
	cmd.Stdin = strings.NewReader("through")
	if out, err := cmd.Output(); err != nil || string(out) != "through" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestScriptWithoutInterpreter(t *testing.T) {
	s := etcdtest.Shared(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo ran\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := programs.Locker(t, s.Endpoint(), "-k", "/noexec", script)
	if code := p.Code(); code != 3 || !strings.Contains(p.Stderr.String(), "#!/bin/sh") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/noexec")
}

// TestInterpreterIsMissing: it is said which, before the lock is asked for.
func TestInterpreterIsMissing(t *testing.T) {
	s := etcdtest.Shared(t)
	for script, says := range map[string]string{
		"#!/bin/nowhere\n":        `the interpreter "/bin/nowhere", which does not exist`,
		"#!/bin/sh\r\nexit 0\r\n": "end with CR LF",
	} {
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		p := programs.Locker(t, s.Endpoint(), "-k", "/interpreter", file)
		if code := p.Code(); code != 3 || !strings.Contains(p.Stderr.String(), says) || !strings.Contains(p.Stderr.String(), "nothing was locked") {
			t.Errorf("%q: exit code %d, %q", script, code, p.Stderr)
		}
	}
	programs.CheckFree(t, s.Client(t), "/interpreter")
}

// TestTooManyArguments: with as many as the kernel allows for etcdlocker itself there are too many
// for its guard, which is given more.
func TestTooManyArguments(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	run := func(n int) *exec.Cmd {
		words := append([]string{"-e", s.Endpoint(), "-k", "/too-many", "--", "true"}, slices.Repeat([]string{strings.Repeat("x", 100)}, n)...)
		cmd := exec.Command(programs.Path("etcdlocker"), words...)
		cmd.Env = programs.Environment()
		return cmd
	}
	few, many := 0, 1<<17 // the first fits, the second does not
	for many-few > 1 {
		n := (few + many) / 2
		cmd := run(n)
		cmd.Args[1] = "--version"
		if err := cmd.Run(); err != nil {
			many = n
		} else {
			few = n
		}
	}
	out, err := run(few).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), "use fewer arguments")) {
		t.Errorf("%v, %s", err, out)
	}
	programs.CheckFree(t, s.Client(t), "/too-many")
}

// TestWithoutPATH: the command is found where a shell would find it, and has no PATH either.
func TestWithoutPATH(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.StartCommand(t, nil, exec.Command("env", "-u", "PATH", programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/path", "--", "env"))
	if code := p.Code(); code != 0 || strings.Contains("\n"+p.Stdout.String(), "\nPATH=") {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		p := programs.Locker(t, s.Endpoint(), "-k", "/sig", "--", "sh", "-c", `trap 'echo got; exit 5' TERM INT QUIT HUP; echo ready; while :; do sleep 0.05; done`)
		p.Says(p.Stdout, "ready")
		p.Signal(sig)
		if code := p.Code(); code != 128+int(sig) || !strings.Contains(p.Stdout.String(), "got") {
			t.Errorf("%v: exit code %d, %q", sig, code, p.Stdout)
		}
	}
	p := programs.Locker(t, s.Endpoint(), "-k", "/sig", "--", "sh", "-c", `trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGUSR1)
	if code := p.Code(); code != 6 {
		t.Errorf("USR1: exit code %d", code)
	}
	programs.CheckFree(t, s.Client(t), "/sig")
}

// TestRareSignalsReachTheCommand: some are caught a while after the others. If the command dies of
// one that has no name, its number is said.
func TestRareSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGPWR, 35, 40, 64} {
		p := programs.Locker(t, s.Endpoint(), "-k", "/rare", "--", "sh", "-c", "echo ready; exec sleep 1000")
		p.Says(p.Stdout, "ready")
		passesRare(t, p)
		p.Signal(sig)
		name := unix.SignalName(sig)
		if name == "" {
			name = fmt.Sprintf("signal %d", int(sig))
		}
		if code := p.Code(); code != 128+int(sig) || !strings.Contains(p.Stderr.String(), "died of "+name+";") {
			t.Errorf("%s: exit code %d, %q", name, code, p.Stderr)
		}
	}
	programs.CheckFree(t, s.Client(t), "/rare")
}

// passesRare waits until an etcdlocker catches the signals that it catches a while after the
// others. Until then one of its threads, from which Go hands signals out, blocks the last of them.
// Go blocks no SIGABRT.
func passesRare(t *testing.T, p *programs.Run) {
	t.Helper()
	const last = 64
	etcdtest.Await(t, "rare signals to be caught", func(context.Context) error {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.Cmd.Process.Pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil || signals(t, tid, "SigBlk")&(1<<(last-1)) != 0 {
				return fmt.Errorf("thread %s blocks it, %v", thread.Name(), err)
			}
		}
		return nil
	})
}

// TestOwnLimits: a limit that etcdlocker meets is not the command's: its log has become too large.
func TestOwnLimits(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	log := filepath.Join(t.TempDir(), "log")
	p := programs.StartCommand(t, []string{"LOG=" + log}, exec.Command("sh", "-c", `ulimit -S -f 0; exec "$0" "$@" 2> "$LOG"`,
		programs.Path("etcdlocker"), "-e", s.Endpoint(), "-v", "-k", "/limits", "--", "sh", "-c", "sleep 0.3; exit 5"))
	if code := p.Code(); code != 5 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/limits")
}

// TestIgnoredFromTheStart: a SIGHUP or SIGINT that we were started to ignore, as by nohup, is
// ignored by us and the command. That others were ignored is not known to a Go program: they are
// passed on.
func TestIgnoredFromTheStart(t *testing.T) {
	s := etcdtest.Shared(t)
	for sig, want := range map[syscall.Signal]int{syscall.SIGHUP: 6, syscall.SIGINT: 6, syscall.SIGTERM: 143, syscall.SIGQUIT: 131} {
		name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
		// The command would die of the signal, if it did not ignore it.
		try := ""
		if want == 6 {
			try = "kill -" + name + " $$; "
		}
		p := programs.StartCommand(t, nil, exec.Command("sh", "-c", `trap "" `+name+`; exec "$@"`, "sh", programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/ignored",
			"--", "sh", "-c", try+`trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done`))
		p.Says(p.Stdout, "ready")
		p.Signal(sig)
		if want == 6 {
			p.Signal(syscall.SIGUSR1)
		}
		if code := p.Code(); code != want {
			t.Errorf("%s: exit code %d, want %d, %q", name, code, want, p.Stderr)
		}
	}
	programs.CheckFree(t, s.Client(t), "/ignored")
}

// TestIgnoredByOption: etcdlocker and the command ignore what they are told to. The command would
// die of it otherwise.
func TestIgnoredByOption(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/ignored", "--ignore-signal", "TERM", "--ignore-signal=USR2", "--ignore-signal=PIPE", "--",
		"sh", "-c", `kill -TERM $$; kill -USR2 $$; kill -PIPE $$; trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGUSR2)
	p.Signal(syscall.SIGUSR1)
	if code := p.Code(); code != 6 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/ignored")
}

// TestStoppedByHand: SIGTSTP to etcdlocker alone stops the command, and then etcdlocker. SIGCONT
// lets both go on.
func TestStoppedByHand(t *testing.T) {
	s := etcdtest.Shared(t)
	file := filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, s.Endpoint(), "-t", "60", "-k", "/by-hand", "--", "sh", "-c", `echo "pid $$."; while [ ! -e `+file+` ]; do sleep 0.05; done; exit 7`)
	p.Says(p.Stdout, ".\n")
	var pid int
	if _, err := fmt.Sscanf(p.Stdout.String(), "pid %d.", &pid); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.Signal(syscall.SIGTSTP)
		stopped(t, pid, true)
		stopped(t, p.Cmd.Process.Pid, true)
		p.Signal(syscall.SIGCONT)
		stopped(t, p.Cmd.Process.Pid, false)
		stopped(t, pid, false)
	}
	programs.Create(t, file)
	if code := p.Code(); code != 7 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	// A command that does not stop goes on under its lock.
	p = programs.Locker(t, s.Endpoint(), "-v", "-r", "0.1", "-t", "20", "-k", "/by-hand", "--", "sh", "-c", `trap '' TSTP; echo ready; exec sleep 1000`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTSTP)
	p.Renews(3)
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/by-hand")
}

// TestContinuedAtOnce: a SIGCONT right behind SIGTSTP, while the command is being stopped, is not
// lost: the signal after them reaches the command, which goes on. Only one that comes in the moment
// in which etcdlocker stops itself is.
func TestContinuedAtOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-t", "60", "-k", "/at-once", "--", "sh", "-c", `trap 'n=$((n+1)); echo "number $n."' USR1; echo ready; while :; do sleep 0.01; done`)
	p.Says(p.Stdout, "ready")
	const pairs, most = 20, 5
	lost := 0
	for i := range pairs {
		p.Signal(syscall.SIGTSTP)
		time.Sleep(time.Duration(i%4) * time.Millisecond / 2) // any moment of it
		p.Signal(syscall.SIGCONT)
		p.Signal(syscall.SIGUSR1)
		number := fmt.Sprintf("number %d.", i+1)
		for end := time.Now().Add(5 * time.Second); !strings.Contains(p.Stdout.String(), number) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !strings.Contains(p.Stdout.String(), number) {
			lost++
			p.Signal(syscall.SIGCONT)
			p.Says(p.Stdout, number)
		}
	}
	if lost > most {
		t.Errorf("%d of %d SIGCONT were lost", lost, pairs)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// stopsLate is a command that takes a moment to stop for a SIGTSTP, as an editor does. It says its
// process id once its child does not handle the signal as well.
const stopsLate = `trap 'echo handles; sleep 0.3; kill -STOP $$; echo goes on' TSTP; (trap "" TSTP; echo pid $$.; exec sleep 1000) & while :; do wait; done`

// TestContinuedBeforeItStopped: a command that stops after the SIGCONT goes on, also where the
// SIGTSTP was typed: no shell has seen anything stop, and nobody else would continue it. Only where
// etcdlocker has not got a processor since then, the kernel takes the SIGTSTP back.
func TestContinuedBeforeItStopped(t *testing.T) {
	s := etcdtest.Shared(t)
	for range 3 {
		p := programs.OnTerminal(t, 80, s.Endpoint(), "-t", "60", "-k", "/before", "--", "sh", "-c", stopsLate)
		command, err := strconv.Atoi(p.Between("pid ", "."))
		if err != nil {
			t.Fatal(err)
		}
		p.Types(ctrlZ)
		p.Shows("handles")
		p.Signal(syscall.SIGCONT)
		goesOn := func() bool { return strings.Contains(p.Stdout.String()[p.Seen:], "goes on") }
		for end := time.Now().Add(10 * time.Second); !goesOn() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !goesOn() {
			syscall.Kill(command, syscall.SIGKILL)
			p.Code()
			continue
		}
		p.Signal(syscall.SIGTERM)
		if code := p.Code(); code != 143 {
			t.Errorf("exit code %d, %q", code, p.Stdout)
		}
		return
	}
	t.Error("the command stayed stopped each time")
}

// TestStoppedByOthersLater: a SIGTSTP that has stopped nothing, and that a SIGCONT has followed, is
// not why the command is stopped later: it stays so.
func TestStoppedByOthersLater(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-v", "-r", "0.1", "-t", "20", "-k", "/later", "--", "sh", "-c", `trap '' TSTP; echo ready; exec sleep 1000`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTSTP)
	p.Signal(syscall.SIGCONT)
	time.Sleep(3 * time.Second) // it counts for two
	command := programs.ChildOf(t, programs.GuardOf(t, p))
	if err := syscall.Kill(command, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped(t, command, true)
	p.Renews(5)
	stopped(t, command, true)
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGKILL)
	<-p.Done
	programs.AwaitEnd(t, strconv.Itoa(command))
}

// stopped waits until a process is stopped, or until it is not.
func stopped(t *testing.T, pid int, want bool) {
	t.Helper()
	etcdtest.Await(t, fmt.Sprintf("process %d to be stopped: %v", pid, want), func(context.Context) error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && strings.Contains(string(stat), ") T ") != want {
			err = fmt.Errorf("%s", stat)
		}
		return err
	})
}

// TestLeftTooLong: what the command has left is waited for after it has ended, which is said.
func TestLeftTooLong(t *testing.T) {
	s := etcdtest.Shared(t)
	file := filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, s.Endpoint(), "-t", "2000", "--grace", "600", "--kill-after", "900", "-k", "/left", "--", "sh", "-c",
		`(trap '' TERM; echo ready; while [ ! -e `+file+` ]; do sleep 0.05; done) & trap 'exit 5' TERM; wait`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTERM)
	p.Says(p.Stderr, "waiting for what the command has left to end, after SIGTERM; it is killed 10m0")
	programs.Create(t, file)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/left")
}

// TestIgnoredTerm: without --kill-after the lock is held for as long as the command takes to stop.
func TestIgnoredTerm(t *testing.T) {
	s := etcdtest.Shared(t)
	file := filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, s.Endpoint(), "-v", "-r", "0.1", "-t", "20", "-k", "/patient", "--", "sh", "-c",
		`trap 'echo asked' TERM; echo ready; while [ ! -e `+file+` ]; do sleep 0.05; done; exit 5`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTERM)
	p.Says(p.Stdout, "asked")
	p.Renews(2)
	p.Says(p.Stderr, "waiting for the command to end, which was told to by SIGTERM\n")
	programs.AwaitHeld(t, s.Client(t), "/patient")
	programs.Create(t, file)
	if code := p.Code(); code != 143 || !strings.Contains(p.Stderr.String(), "command ended exit_code=5\n") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	dated := regexp.MustCompile(`^etcdlocker: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|warning|error|hint|waiting)`)
	for line := range strings.Lines(p.Stderr.String()) {
		if !dated.MatchString(line) {
			t.Errorf("it does not say when: %q", line)
		}
	}
	programs.CheckFree(t, s.Client(t), "/patient")
}

// TestSignalToTheGroup: systemd, a terminal and others send a signal to etcdlocker and its command
// at the same time. The command may end before etcdlocker has noticed, and it was told to stop all
// the same.
func TestSignalToTheGroup(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for range 30 {
		cmd := exec.Command(programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/to-the-group", "--", "sh", "-c", "echo ready; exec sleep 1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		p := programs.StartCommand(t, nil, cmd)
		p.Says(p.Stdout, "ready")
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := p.Code(); code != 143 || !strings.Contains(p.Stderr.String(), "stopped by SIGTERM") {
			t.Fatalf("exit code %d, %q", code, p.Stderr)
		}
	}
}

// TestSignalToTheUnit: a service manager sends TERM to each process of a unit. The command has it
// from there, and does not get it from etcdlocker.
func TestSignalToTheUnit(t *testing.T) {
	s := etcdtest.Shared(t)
	for _, guardFirst := range []bool{false, true} {
		for _, sent := range []int{0, 1} { // to the command
			p, guard, command := counting(t, s.Endpoint(), true)
			pids := []int{p.Cmd.Process.Pid, guard}
			if guardFirst {
				slices.Reverse(pids)
			}
			if sent > 0 {
				if err := syscall.Kill(command, syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				p.Says(p.Stdout, "asked") // or a second one could become one with it
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			p.Signal(syscall.SIGIO) // comes after whatever else etcdlocker has sent
			if code := p.Code(); code != 143 || strings.Count(p.Stdout.String(), "asked") != sent {
				t.Errorf("the guard first: %v, %d sent: exit code %d, %q, %q", guardFirst, sent, code, p.Stdout, p.Stderr)
			}
		}
	}
	programs.CheckFree(t, s.Client(t), "/unit")
}

// TestSignalToNamesakes: somebody sends TERM to all that is called like etcdlocker, and not to the
// command: another program, or who has started etcdlocker. It gets it from etcdlocker.
func TestSignalToNamesakes(t *testing.T) {
	s := etcdtest.Shared(t)
	for name, send := range map[string]func(guard, locker int) error{
		"another program": func(guard, locker int) error {
			return exec.Command("sh", "-c", fmt.Sprintf("kill %d %d", guard, locker)).Run()
		},
		"its parent": func(guard, locker int) error {
			return errors.Join(syscall.Kill(guard, syscall.SIGTERM), syscall.Kill(locker, syscall.SIGTERM))
		},
	} {
		p, guard, _ := counting(t, s.Endpoint(), false)
		if err := send(guard, p.Cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		p.Says(p.Stdout, "asked")
		p.Signal(syscall.SIGIO)
		if code := p.Code(); code != 143 || strings.Count(p.Stdout.String(), "asked") != 1 {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.Stdout, p.Stderr)
		}
		programs.CheckFree(t, s.Client(t), "/unit")
	}
}

// TestNoSignalHidesTerm: a manager that sends signals faster than etcdlocker finds out who has got
// them is obeyed.
func TestNoSignalHidesTerm(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := inSession(t, true, s.Endpoint(), "-k", "/hidden", "--", "sh", "-c",
		`trap 'exit 5' TERM; trap '' USR1; trap : USR2; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	for range 3000 {
		p.Signal(syscall.SIGUSR1)
		p.Signal(syscall.SIGUSR2)
		time.Sleep(100 * time.Microsecond) // else they are one signal
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/hidden")
}

// inSession starts an etcdlocker, in a session of its own or in this one.
func inSession(t *testing.T, own bool, endpoint string, args ...string) *programs.Run {
	t.Helper()
	cmd := exec.Command(programs.Path("etcdlocker"), append([]string{"-e", endpoint}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: own}
	return programs.StartCommand(t, nil, cmd)
}

// counting runs a command that says how often it is asked to end, and ends of IO: a shell takes
// signals in the order of their numbers. It has a session of its own or not. It returns when the
// guard would tell of a signal.
func counting(t *testing.T, endpoint string, session bool) (p *programs.Run, guard, command int) {
	t.Helper()
	p = inSession(t, session, endpoint, "-k", "/unit", "--", "sh", "-c",
		`trap 'echo asked' TERM; trap 'exit 6' IO; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	guard = programs.GuardOf(t, p)
	command = programs.ChildOf(t, guard)
	etcdtest.Await(t, "the guard to leave the session, and to tell of what comes before that", func(context.Context) error {
		if session, err := unix.Getsid(guard); err != nil || session != guard {
			return fmt.Errorf("it is in session %d, %v", session, err)
		}
		return nil
	})
	return p, guard, command
}

func TestStubbornCommand(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/stubborn", "--kill-after", "0.2", "--", "sh", "-c", `trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	programs.CheckFree(t, s.Client(t), "/stubborn")
}

func TestToldToStopLeavesNothing(t *testing.T) {
	s := etcdtest.Shared(t)
	file := filepath.Join(t.TempDir(), "pid")
	// The shell dies of TERM, its worker in a session of its own does not hear of it.
	p := programs.Locker(t, s.Endpoint(), "-k", "/tree", "--grace", "0.3", "--", "sh", "-c",
		`setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.05; done' `+file+` & echo ready; wait`)
	worker := programs.AwaitFile(t, file)
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	programs.AwaitEnd(t, worker)
	programs.CheckFree(t, s.Client(t), "/tree")
}

func TestOrphans(t *testing.T) {
	s := etcdtest.Shared(t)
	script := func(file string) string {
		return `setsid sh -c 'echo $$ > "$0"; while [ ! -e "$0.end" ]; do sleep 0.05; done' ` + file + ` > /dev/null 2>&1 & while [ ! -s ` + file + ` ]; do sleep 0.05; done`
	}
	t.Run("leave", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		p := programs.Locker(t, s.Endpoint(), "-k", "/orphan/leave", "--", "sh", "-c", script(file))
		if code := p.Code(); code != 0 || !strings.Contains(p.Stderr.String(), "(pid "+programs.AwaitFile(t, file)+")") {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
		programs.CheckFree(t, s.Client(t), "/orphan/leave")
		os.WriteFile(file+".end", nil, 0o600)
		programs.AwaitEnd(t, programs.AwaitFile(t, file))
	})
	t.Run("kill", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		p := programs.Locker(t, s.Endpoint(), "-k", "/orphan/kill", "--orphans=kill", "--", "sh", "-c", script(file))
		if code := p.Code(); code != 0 {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
		programs.AwaitEnd(t, programs.AwaitFile(t, file))
	})
	t.Run("wait", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pid")
		p := programs.Locker(t, s.Endpoint(), "-k", "/orphan/wait", "--orphans=wait", "--", "sh", "-c", script(file)+"; echo main-ended")
		p.Says(p.Stdout, "main-ended")
		programs.AwaitHeld(t, s.Client(t), "/orphan/wait")
		os.WriteFile(file+".end", nil, 0o600)
		if code := p.Code(); code != 0 {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
		programs.CheckFree(t, s.Client(t), "/orphan/wait")
	})
}

// TestOrphansOutliveTheLock: what is left to run on does so, whatever becomes of the lock, and of
// etcdlocker, while it is kept for longer than the command runs.
func TestOrphansOutliveTheLock(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*programs.Run, *etcdtest.Link) int{
		"lost": func(p *programs.Run, link *etcdtest.Link) int {
			link.Silence()
			return p.Code()
		},
		"killed": func(p *programs.Run, _ *etcdtest.Link) int {
			p.Signal(syscall.SIGKILL)
			return p.Code()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, key, file := etcdtest.Shared(t), "/orphan/outlives/"+name, filepath.Join(t.TempDir(), "pid")
			link := etcdtest.NewLink(t, s.Endpoint())
			p := programs.Locker(t, link.Endpoint(), "-v", "-t", "10", "-r", "0.5", "-k", key, "--hold-at-least", "1h", "--", "sh", "-c",
				`setsid sleep 1000 > /dev/null 2>&1 & echo $! > "$0"`, file)
			pid, err := strconv.Atoi(programs.AwaitFile(t, file))
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(pid, syscall.SIGKILL)
			p.Says(p.Stderr, "running without the lock")
			p.Renews(2) // with what comes of the guard meanwhile
			want := 2
			if name == "killed" {
				want = -1
			}
			if code := do(p, link); code != want {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			etcdtest.Await(t, "the lock to be free", func(ctx context.Context) error {
				if n := len(etcdtest.Keys(t, s.Client(t), key+"/")); n != 0 {
					return fmt.Errorf("%d in line", n)
				}
				return nil
			})
			if !alive.Process(pid) {
				t.Error("what was left to run on is dead")
			}
		})
	}
}

// TestPID1: as the first process of a container it reaps what falls to it, and passes on signals
// and codes.
func TestPID1(t *testing.T) {
	programs.NeedsNamespaces(t)
	s := etcdtest.Shared(t)
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", programs.Path("etcdlocker"),
		"-e", s.Endpoint(), "-k", "/pid1", "--", "sh", "-c", `for i in 1 2 3; do (sleep 0.01 &) ; done; sleep 0.2; ps -eo stat= | grep -c Z; exit 9`)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 9 || string(out) != "0\n" {
		t.Errorf("%q, %v", out, err)
	}
	programs.CheckFree(t, s.Client(t), "/pid1")
}

// TestPID1Standby: while it waits for the lock, the first process of a container reaps what others
// leave in there.
func TestPID1Standby(t *testing.T) {
	programs.NeedsNamespaces(t)
	s := etcdtest.Shared(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", "/standby")
	programs.AwaitHeld(t, s.Client(t), "/standby")
	p := programs.StartCommand(t, nil, exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", programs.Path("etcdlocker"),
		"-e", s.Endpoint(), "-k", "/standby", "echo", "ran"))
	p.Says(p.Stderr, "place 1 in line")
	// Somebody comes into the container and leaves an orphan.
	in := exec.Command("nsenter", "--pid", "--target", strconv.Itoa(firstOf(t, p)), "sh", "-c", `sh -c 'echo $$; exec sleep 0.1' & sleep 0.05`)
	if out, err := in.CombinedOutput(); err != nil {
		t.Logf("nsenter: %v, %s", err, out)
		etcdtest.Missing(t, "nsenter and the right to enter pid namespaces")
	}
	etcdtest.Await(t, "no zombies", func(context.Context) error {
		out, err := exec.Command("ps", "-o", "stat=,comm=", "--ppid", strconv.Itoa(firstOf(t, p))).Output()
		if err == nil && (strings.Contains(string(out), "sleep") || strings.Contains(string(out), "Z")) {
			err = errors.New(string(out))
		}
		return err
	})
	holder.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// firstOf returns the first process of the pid namespace that a program, unshare, has made.
func firstOf(t *testing.T, p *programs.Run) int {
	t.Helper()
	children, err := exec.Command("pgrep", "-P", strconv.Itoa(p.Cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// TestPID1Adopts: what the guard leaves when it is killed falls to the first process, which ends
// it. Signals go on to the command.
func TestPID1Adopts(t *testing.T) {
	programs.NeedsNamespaces(t)
	s := etcdtest.Shared(t)
	pid1 := func(key string, command ...string) *programs.Run {
		return programs.StartCommand(t, nil, exec.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", programs.Path("etcdlocker"),
			"-e", s.Endpoint(), "-k", key, "--"}, command...)...))
	}
	p := pid1("/pid1/guard", "sh", "-c", `setsid sh -c 'sleep 1000 & wait' > /dev/null 2>&1 & sleep 1000 & kill -KILL $PPID; wait`)
	if code := p.Code(); code != 137 || !strings.Contains(p.Stderr.String(), "the guard process was killed") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.AwaitTreeEnd(t, "/pid1/guard")
	programs.CheckFree(t, s.Client(t), "/pid1/guard")

	p = pid1("/pid1/signal", "sh", "-c", `trap 'echo asked; exit 6' USR1; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	if err := syscall.Kill(firstOf(t, p), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if code := p.Code(); code != 6 || !strings.Contains(p.Stdout.String(), "asked") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestSocketActivation: sockets that a service manager means for etcdlocker are the command's. What
// is meant for another process stays so.
func TestSocketActivation(t *testing.T) {
	s := etcdtest.Shared(t)
	run := func(pid string, command ...string) *programs.Run {
		words := []string{"-c", `export LISTEN_FDS=1 LISTEN_PIDFDID=5 LISTEN_PID=` + pid + `; exec "$@"`, "sh",
			programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/activated", "--ignore-signal", "USR2", "--"}
		return programs.StartCommand(t, nil, exec.Command("sh", append(words, command...)...))
	}
	const says = `kill -USR2 $$; echo "$LISTEN_FDS $LISTEN_PIDFDID. $(($LISTEN_PID - $$)) $(ulimit -Sn)"; exit 7`
	limit, err := exec.Command("sh", "-c", "ulimit -Sn").Output()
	if err != nil {
		t.Fatal(err)
	}
	p := run("$$", "sh", "-c", says)
	if code := p.Code(); code != 7 || p.Stdout.String() != "1 . 0 "+string(limit) {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	p = run("1", "sh", "-c", "echo $LISTEN_PID $LISTEN_PIDFDID")
	if code := p.Code(); code != 0 || p.Stdout.String() != "1 5\n" {
		t.Errorf("meant for another process: exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo ran\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p = run("$$", script)
	if code := p.Code(); code != 3 || !strings.Contains(p.Stderr.String(), "cannot run") {
		t.Errorf("not executable: exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/activated")
}

// TestDescriptorsAreTheCommands: those that etcdlocker was started with go on to the command, and
// none of its own.
func TestDescriptorsAreTheCommands(t *testing.T) {
	s := etcdtest.Shared(t)
	list := []string{"sh", "-c", `ls /proc/$$/fd >&4`}
	descriptors := func(words ...string) string {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := exec.Command(words[0], words[1:]...)
		cmd.ExtraFiles = []*os.File{w, w}
		p := programs.StartCommand(t, nil, cmd)
		w.Close()
		got, err := io.ReadAll(r)
		if code := p.Code(); code != 0 || err != nil {
			t.Errorf("exit code %d, %v, %q", code, err, p.Stderr)
		}
		return string(got)
	}
	// The tests themselves may have been started with others.
	want := descriptors(list...)
	if got := descriptors(append([]string{programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/descriptors", "--"}, list...)...); got != want {
		t.Errorf("descriptors %q, without etcdlocker %q", got, want)
	}
}

// TestEnvironmentIsTheCommands: nothing of what the guard needs for itself is in it.
func TestEnvironmentIsTheCommands(t *testing.T) {
	s := etcdtest.Shared(t)
	inner := []string{"-e", s.Endpoint(), "-k", "/environment", "--", "env"}
	outer := []string{"-e", s.Endpoint(), "-k", "/outer", "--", programs.Path("etcdlocker"), "--unguarded"}
	for _, tt := range []struct{ own, words []string }{
		{nil, inner}, {[]string{"GOMAXPROCS=7"}, inner}, {steersGo, inner}, {steersGo, slices.Concat(outer, inner)},
	} {
		p := programs.Start(t, tt.own, "etcdlocker", tt.words...)
		if code := p.Code(); code != 0 || p.Said() != "" {
			t.Fatalf("exit code %d, %q", code, p.Stderr)
		}
		var got []string
		for _, kv := range strings.Fields(p.Stdout.String()) {
			if !strings.HasPrefix(kv, "ETCD_LOCK_") && !strings.HasPrefix(kv, "ETCDLOCK_HELD") {
				got = append(got, kv)
			}
		}
		want := programs.Environment(tt.own...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("it has %q, want %q", got, want)
		}
	}
}

// steersGo steers Go's runtime in a command.
var steersGo = []string{"GOGC=off", "GOMEMLIMIT=1GiB", "GODEBUG=madvdontneed=1"}

// TestCommandAloneIsSteered: what steers Go's runtime in a command does not do so in etcdlocker and
// the guard. They are called as ever.
func TestCommandAloneIsSteered(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Start(t, steersGo, "etcdlocker", "-e", s.Endpoint(), "-k", "/steered", "--", "sh", "-c", "echo ready; while :; do sleep 0.05; done")
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	for name, pid := range map[string]int{"etcdlocker": p.Cmd.Process.Pid, "etcdlocker-guar": guard, "sh": programs.ChildOf(t, guard)} {
		proc := fmt.Sprintf("/proc/%d/", pid)
		comm, err := os.ReadFile(proc + "comm")
		if err != nil || string(comm) != name+"\n" {
			t.Errorf("%s is called %q, %v", name, comm, err)
		}
		environ, err := os.ReadFile(proc + "environ")
		if err != nil {
			t.Fatal(err)
		}
		vars := strings.Split(string(environ), "\x00")
		for _, kv := range steersGo {
			takenBack := name == "etcdlocker" && !strings.HasPrefix(kv, "GODEBUG=")
			if has := slices.Contains(vars, kv); has != (name == "sh" || takenBack) {
				t.Errorf("%s has %s: %v", name, kv, has)
			}
		}
	}
}

// TestRecordNamesTheProgramAlone: arguments can be secrets, and directories tell.
func TestRecordNamesTheProgramAlone(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/record", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000", "--password=secret")
	p.Says(p.Stdout, "ready")
	record := string(newestPlace(t, s.Client(t), "/record").Value)
	if !strings.Contains(record, `"command":"sh"`) || strings.Contains(record, "secret") || strings.Contains(record, "/bin") {
		t.Errorf("the record is %s", record)
	}
}

// TestForeignProc: where /proc shows other processes under the numbers of ours, the tree is found
// without it.
func TestForeignProc(t *testing.T) {
	programs.NeedsNamespaces(t)
	s := etcdtest.Shared(t)
	client := s.Client(t)
	p := programs.StartCommand(t, nil, exec.Command("unshare", append([]string{"--pid", "--fork", programs.Path("etcdlocker"),
		"-e", s.Endpoint(), "-k", "/foreign-proc", "--"}, programs.StubbornTree...)...))
	p.Says(p.Stdout, "ready")
	lease := programs.AwaitHeld(t, client, "/foreign-proc").Kvs[0].Lease
	if _, err := client.Revoke(etcdtest.Context(t), clientv3.LeaseID(lease)); err != nil {
		t.Fatal(err)
	}
	// With 3 it would say that something could not be killed.
	if code := p.Code(); code != 2 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}
