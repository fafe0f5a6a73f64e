//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// shell runs a shell with job control on a terminal. It finds etcdlocker, the server, and programs
// for the terminal in its environment.
func shell(t testing.TB, endpoint string) *programs.Terminal {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		etcdtest.Missing(t, "bash, which has job control")
	}
	p := programs.CommandOnTerminal(t, 200, exec.Command("env", append(shellVariables(t, endpoint), bash, "--norc", "--noprofile", "-i")...))
	p.Shows("$ ")
	return p
}

func shellVariables(t testing.TB, endpoint string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	vars := []string{"PATH=" + programs.Path(".") + ":" + os.Getenv("PATH"), "ETCD_LOCK_HOST=" + endpoint, "PS1=$ "}
	for role := range screens {
		vars = append(vars, strings.ToUpper(role)+"=env "+roleVariable+"="+role+" "+self)
	}
	return vars
}

const (
	ctrlC         = "\x03"
	ctrlZ         = "\x1a"
	ctrlBackslash = "\x1c"
)

func TestWaitingLineOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", "/line", "-i", "the-holder")
	programs.AwaitHeld(t, s.Client(t), "/line")
	before := programs.Locker(t, s.Endpoint(), "-k", "/line", "true")
	before.Says(before.Stderr, "place 1 in line")

	waiter := programs.OnTerminal(t, 200, s.Endpoint(), "-k", "/line", "echo", "ran")
	waiter.Says(waiter.Stdout, `etcdlocker: waiting for lock "/line": held by "the-holder" since `)
	waiter.Says(waiter.Stdout, "place 2 in line")
	before.Signal(syscall.SIGTERM)
	waiter.Says(waiter.Stdout, "place 1 in line")
	holder.Signal(syscall.SIGTERM)
	if code := waiter.Code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	const erase = "\r\x1b[K"
	shown := waiter.Shown()
	if !strings.HasSuffix(shown, "in line"+erase+"ran\r\n") {
		t.Errorf("the line stays on the terminal: %q", shown)
	}
	if strings.Count(shown, "\n") != 1 {
		t.Errorf("the line is not one line: %q", shown)
	}
}

func TestWaitingLineOnANarrowTerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	programs.Locker(t, s.Endpoint(), "-k", "/narrow", "-i", "the-holder")
	programs.AwaitHeld(t, s.Client(t), "/narrow")
	const columns = 30
	waiter := programs.OnTerminal(t, columns, s.Endpoint(), "-k", "/narrow", "echo", "ran")
	waiter.Says(waiter.Stdout, "...")
	for _, line := range regexp.MustCompile(`\r|\n|\x1b\[K`).Split(waiter.Stdout.String(), -1) {
		if utf8.RuneCountInString(line) >= columns {
			t.Errorf("%q does not fit into %d columns", line, columns)
		}
	}
	waiter.Types(ctrlC)
	if code := waiter.Code(); code != 130 || !strings.Contains(waiter.Stdout.String(), "stopped by SIGINT while waiting") {
		t.Errorf("exit code %d, %q", code, waiter.Stdout)
	}
	if got := len(etcdtest.Keys(t, s.Client(t), "/narrow/")); got != 1 {
		t.Errorf("%d places in line, want the holder's alone", got)
	}
}

// TestWaitingLineWithWideCharacters: what takes two columns does not make the line longer than the
// terminal is wide.
func TestWaitingLineWithWideCharacters(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), strings.Repeat("鍵", 38)
	programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	const columns = 80
	waiter := programs.OnTerminal(t, columns, s.Endpoint(), "-k", key, "echo", "ran")
	waiter.Says(waiter.Stdout, "...")
	for _, line := range regexp.MustCompile(`\r|\n|\x1b\[K`).Split(waiter.Stdout.String(), -1) {
		if n := utf8.RuneCountInString(line) + strings.Count(line, "鍵"); n >= columns {
			t.Errorf("%q takes %d of %d columns", line, n, columns)
		}
	}
}

// TestWaitingOnADumbTerminal: one line, another when it is over, and nothing that it could not
// erase.
func TestWaitingOnADumbTerminal(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/dumb"
	holder := programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	waiter := programs.CommandOnTerminal(t, 80, exec.Command("env", "TERM=dumb", programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key, "echo", "ran"))
	waiter.Shows("waiting for lock")
	awaitUpdates(t, s.Endpoint(), key)
	holder.Signal(syscall.SIGTERM)
	waiter.Code()
	if shown := waiter.Shown(); strings.Contains(shown, "\x1b") || strings.Count(shown, "\n") != 3 || !strings.Contains(shown, `lock "/dumb" acquired after `) {
		t.Errorf("it shows %q", shown)
	}
}

// awaitUpdates waits until one more who waits for a lock has brought its line up to date twice. By
// then everybody else who waits would have done so.
func awaitUpdates(t *testing.T, endpoint, key string) {
	t.Helper()
	twin := programs.OnTerminal(t, 200, endpoint, "-k", key, "true")
	for range 2 {
		twin.Shows("\x1b[K")
	}
	twin.Signal(syscall.SIGTERM)
	twin.Code()
}

// TestWaitingInTheBackground: an etcdlocker that waits in the background does not write over what
// is typed, and shows its line when it comes to the foreground.
func TestWaitingInTheBackground(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/waits/background"
	holder := programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	sh := shell(t, s.Endpoint())
	sh.Types("etcdlocker -k " + key + " -- echo ran &\r")
	sh.Shows("place 1 in line")
	begin := sh.Seen
	sh.Types("echo ty''ped")
	sh.Shows("echo ty''ped")
	awaitUpdates(t, s.Endpoint(), key)
	sh.Types("\r")
	sh.Shows("typed\r\n")
	sh.Shows("$ ")
	if shown := sh.Stdout.String()[begin:sh.Seen]; strings.Contains(shown, "waiting") || strings.Contains(shown, "\x1b[K") {
		t.Errorf("it writes over what is typed: %q", shown)
	}
	sh.Types("fg\r")
	sh.Shows("waiting for lock")
	holder.Signal(syscall.SIGTERM)
	sh.Shows("ran")
	sh.Shows("$ ")
	sh.Ends()
}

// TestTostop: an etcdlocker in the background says what it has to say also where the terminal stops
// who writes from there. Stopped, it would not renew the lock.
func TestTostop(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.Types("stty tostop\r")
	sh.Shows("$ ")
	sh.Types("etcdlocker -v -k /tostop -- sh -c 'exit 7' & wait $!; echo code $?\r")
	sh.Shows("code 7")
	sh.Shows("$ ")
	sh.Ends()
}

// TestCtrlCReachesTheCommandOnce: the terminal has sent it to the whole group already.
func TestCtrlCReachesTheCommandOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.OnTerminal(t, 80, s.Endpoint(), "-v", "-k", "/ctrl-c", "--", "sh", "-c",
		`trap 'echo interrupted' INT; trap 'echo asked; exit 5' USR1; echo ready; while :; do sleep 0.05; done`)
	p.Says(p.Stdout, "ready")
	p.Says(p.Stdout, "command started") // what comes before comes from etcdlocker as well
	p.Types(ctrlC)
	p.Says(p.Stdout, "interrupted")
	p.Signal(syscall.SIGUSR1) // comes after whatever else etcdlocker has sent
	if code := p.Code(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(p.Stdout.String(), "interrupted"); n != 1 {
		t.Errorf("one Ctrl-C came %d times: %q", n, p.Stdout)
	}
	programs.CheckFree(t, s.Client(t), "/ctrl-c")
}

func TestTheCommandReadsFromTheTerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.OnTerminal(t, 80, s.Endpoint(), "-k", "/prompt", "--", "sh", "-c",
		`stty -echo; printf 'password: '; read -r word; stty echo; echo; [ -t 0 ] && [ -t 1 ] && echo "it is ${#word} long"`)
	p.Says(p.Stdout, "password: ")
	p.Types("secret\r")
	if code := p.Code(); code != 0 || !strings.Contains(p.Stdout.String(), "it is 6 long") {
		t.Errorf("exit code %d, %q", code, p.Stdout)
	}
	if strings.Contains(p.Stdout.String(), "secret") {
		t.Error("the terminal showed what must not be shown")
	}
}

// TestCtrlZ: command and renewing stop, the prompt comes back, and fg in time goes on as if nothing
// had been.
func TestCtrlZ(t *testing.T) {
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.Types("etcdlocker -t 60 -k /ctrl-z -- sh -c 'echo rea''dy; read -r x; echo got $x; exit 7'\r")
	sh.Says(sh.Stdout, "ready")
	sh.Types(ctrlZ)
	sh.Shows("Stopped")
	sh.Shows("$ ") // what comes before it may be thrown away
	sh.Types("echo the pro''mpt\r")
	sh.Says(sh.Stdout, "the prompt")
	programs.AwaitHeld(t, s.Client(t), "/ctrl-z")
	sh.Types("fg; echo co''de $?\r")
	etcdtest.Await(t, "the command to go on", func(context.Context) error {
		sh.Types(":\r") // fg throws away what was typed before it is done
		if !strings.Contains(sh.Stdout.String(), "got :") {
			return errors.New(sh.Stdout.String())
		}
		return nil
	})
	sh.Says(sh.Stdout, "code 7")
	programs.CheckFree(t, s.Client(t), "/ctrl-z")
	sh.Ends()
}

// TestCtrlZWaits: who waits for the lock stops as well, and then goes on to wait.
func TestCtrlZWaits(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", "/ctrl-z/waits")
	programs.AwaitHeld(t, s.Client(t), "/ctrl-z/waits")
	sh := shell(t, s.Endpoint())
	sh.Types("etcdlocker -t 60 -k /ctrl-z/waits -- echo got i''t\r")
	for range 2 {
		sh.Shows("waiting for lock")
		sh.Types(ctrlZ)
		sh.Shows("Stopped")
		sh.Shows("$ ")
		sh.Types("fg; echo co''de $?\r")
	}
	sh.Shows("waiting for lock")
	holder.Signal(syscall.SIGTERM)
	sh.Says(sh.Stdout, "got it")
	sh.Says(sh.Stdout, "code 0")
	freed(t, sh, s.Client(t), "/ctrl-z/waits")
}

// TestCtrlZTooLong: the command is dead before the lock can go to somebody else, and fg says that
// it was lost.
func TestCtrlZTooLong(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	sh := shell(t, s.Endpoint())
	sh.Types("etcdlocker -t 5 -k /too-long -- sh -c 'echo rea''dy; read -r x'\r")
	sh.Says(sh.Stdout, "ready")
	lease := programs.AwaitHeld(t, client, "/too-long").Kvs[0].Lease
	sh.Types(ctrlZ)
	sh.Says(sh.Stdout, "Stopped")
	programs.CheckEndsBefore(t, client, "/too-long", lease)
	sh.Types("fg; echo co''de $?\r")
	sh.Says(sh.Stdout, "code 2")
	sh.Ends()
}

// TestScreens: programs that have the terminal to themselves work under a shell with job control as
// they do without etcdlocker. Ctrl-Z brings the prompt back, fg in time resumes them, and the
// terminal is set as before when they have ended.
func TestScreens(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		line string // that starts it
		use  func(*testing.T, *programs.Terminal)
		out  string // what comes out
	}{
		"editor":               {`etcdlocker -t 60 -k /screen -- $EDITOR`, useEditor, "edited"},
		"editor in a pipeline": {`echo fed | etcdlocker -t 60 -k /screen -- $EDITOR | sed s/^/out:/`, useEditor, "out:edited"},
		"pager":                {`etcdlocker -t 60 -k /screen -- $PAGER <<< $'one\ntwo'`, usePager, ""},
		"pager at the end":     {`printf 'one\ntwo\n' | etcdlocker -t 60 -k /screen -- $PAGER`, usePager, ""},
		"pager in a pipeline":  {`printf 'one\ntwo\n' | etcdlocker -t 60 -k /screen -- $PAGER | cat`, usePager, ""},
		"prompt":               {`etcdlocker -t 60 -k /screen -- $PROMPT`, usePrompt, "prompt: 6 long, <nil>"},
		"prompt in a pipeline": {`echo fed | etcdlocker -t 60 -k /screen -- $PROMPT | sed s/^/out:/`, usePrompt, "out:prompt: 6 long, <nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			sh := shell(t, s.Endpoint())
			modes := sh.Modes()
			sh.Types(tt.line + "\r")
			tt.use(t, sh)
			if shown := sh.Shows(tt.out); strings.Contains(shown, "secret") {
				t.Errorf("the terminal showed what must not be shown: %q", shown)
			}
			sh.Shows("$ ")
			sh.Types("echo codes='<'${PIPESTATUS[*]}'>'\r")
			if codes := sh.Between("codes=<", ">"); strings.Trim(codes, " 0") != "" {
				t.Errorf("exit codes %s", codes)
			}
			sh.Shows("$ ")
			if after := sh.Modes(); after != modes {
				t.Errorf("the terminal was set to %s and is set to %s", modes, after)
			}
			sh.Ends()
			programs.CheckFree(t, s.Client(t), "/screen")
		})
	}
}

func useEditor(t *testing.T, sh *programs.Terminal) {
	sh.Shows("editor: opens")
	sh.Types("x")
	sh.Shows("editor: key 'x'")
	sh.Types(ctrlC)
	sh.Shows(`editor: key '\x03'`)
	sh.Resizes(30, 100)
	sh.Shows("editor: 30 rows of 100")
	executed(t, sh)
	sh.Types(ctrlZ)
	sh.Shows("editor: leaves")
	suspended(sh, "editor")
	sh.Types("y")
	sh.Shows("editor: key 'y'")
	sh.Types("q")
	sh.Shows("editor: closes")
}

func usePager(t *testing.T, sh *programs.Terminal) {
	sh.Shows("pager: opens")
	sh.Types(" ")
	sh.Shows(`pager: line "one"`)
	executed(t, sh)
	sh.Types(ctrlZ)
	sh.Shows("pager: leaves")
	suspended(sh, "pager")
	sh.Types(" ")
	sh.Shows(`pager: line "two"`)
	sh.Types("q")
	sh.Shows("pager: closes")
}

// executed waits until the shell's children are the programs that it runs. Until then they are
// shells, which ignore what stops a job: one that has not got a processor yet would go on without
// the others, and the shell would wait for it.
func executed(t *testing.T, sh *programs.Terminal) {
	t.Helper()
	etcdtest.Await(t, "the programs to be executed", func(context.Context) error {
		for _, pid := range etcdtest.Children(sh.Cmd.Process.Pid) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && strings.Contains(string(stat), "(bash)") && !strings.Contains(string(stat), ") Z ") {
				return fmt.Errorf("process %d is still a shell", pid)
			}
		}
		return nil
	})
}

// suspended waits for the prompt of a shell whose foreground job stops, and for the program to be
// back.
func suspended(sh *programs.Terminal, program string) {
	sh.Shows("Stopped")
	sh.Shows("$ ")
	sh.Types("echo the pro''mpt\r")
	sh.Shows("the prompt")
	sh.Shows("$ ")
	sh.Types("fg\r")
	sh.Shows(program + ": is back")
	sh.Plain(false)
}

func usePrompt(_ *testing.T, sh *programs.Terminal) {
	sh.Shows("prompt: ")
	sh.Plain(false)
	sh.Types("secret\r")
}

// TestCtrlCAtAPrompt: the prompt dies of it, and cannot undo what it did to the terminal.
func TestCtrlCAtAPrompt(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for name, line := range map[string]string{
		"alone":         `etcdlocker -k /interrupted -- $PROMPT; echo code $?`,
		"in a pipeline": `echo fed | etcdlocker -k /interrupted -- $PROMPT | cat`,
	} {
		t.Run(name, func(t *testing.T) {
			sh := shell(t, s.Endpoint())
			modes := sh.Modes()
			sh.Types(line + "\r")
			sh.Shows("prompt: ")
			sh.Plain(false)
			sh.Types(ctrlC)
			sh.Shows("stopped by SIGINT")
			sh.Shows("$ ")
			if after := sh.Modes(); after != modes {
				t.Errorf("the terminal was set to %s and is set to %s", modes, after)
			}
			sh.Ends()
			programs.CheckFree(t, s.Client(t), "/interrupted")
		})
	}
}

// TestTerminalSignalsComeOnce: what the terminal sends to the whole foreground group is not sent to
// the command again.
func TestTerminalSignalsComeOnce(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for where, line := range map[string]string{
		"alone":         `etcdlocker -v -k /once -- $COUNTER`,
		"in a pipeline": `echo fed | etcdlocker -v -k /once -- $COUNTER | (trap '' INT QUIT; cat)`,
		"own group":     `etcdlocker -v -k /once -- $LEADER`,
	} {
		for _, tt := range terminalSignals {
			t.Run(tt.name+" "+where, func(t *testing.T) {
				sh := shell(t, s.Endpoint())
				sh.Types(line + "\r")
				comesOnce(t, sh, tt.act, tt.want, below(t, sh))
				freed(t, sh, s.Client(t), "/once")
			})
		}
	}
}

// below waits for a counter, and for its etcdlocker (with -v) to say that it was started, and
// returns the process id of the latter. What is typed before that may come twice: the command may
// not have got it.
func below(t *testing.T, p *programs.Terminal) (locker int) {
	t.Helper()
	locker, err := strconv.Atoi(p.Between("counter: below ", "."))
	if err != nil {
		t.Fatal(err)
	}
	p.Says(p.Stdout, "command started")
	return locker
}

// freed waits for the prompt, ends the shell, and checks that the lock is free.
func freed(t *testing.T, sh *programs.Terminal, client *clientv3.Client, key string) {
	t.Helper()
	sh.Shows("$ ")
	sh.Ends()
	programs.CheckFree(t, client, key)
}

// TestSentOnATerminal: a signal that is sent to etcdlocker alone while it has the terminal is not
// taken for one that was typed, and goes on to the command.
func TestSentOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, command := range []string{"$COUNTER", "$LEADER"} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH} {
			t.Run(command+" "+unix.SignalName(sig), func(t *testing.T) {
				sh := shell(t, s.Endpoint())
				sh.Types("etcdlocker -v -k /sent -- " + command + "\r")
				locker := below(t, sh)
				comesOnce(t, sh, func(*programs.Terminal, int) { syscall.Kill(locker, sig) }, unix.SignalName(sig), locker)
				freed(t, sh, s.Client(t), "/sent")
			})
		}
	}
}

// TestCtrlZOfAGroup: a command that has a process group of its own stops with etcdlocker, and fg
// lets both go on.
func TestCtrlZOfAGroup(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.Types("etcdlocker -v -t 60 -k /ctrl-z/group -- $LEADER\r")
	locker := below(t, sh)
	sh.Types(ctrlZ)
	sh.Shows("Stopped")
	sh.Shows("$ ")
	stopped(t, programs.ChildOf(t, programs.ChildOf(t, locker)), true)
	sh.Types("fg\r")
	stopped(t, locker, false)
	comesOnce(t, sh, func(p *programs.Terminal, _ int) { p.Types(ctrlC) }, "SIGINT", locker)
	freed(t, sh, s.Client(t), "/ctrl-z/group")
}

// TestStoppedAlone: what etcdlocker has stopped because it was told to itself, it lets go on with
// itself.
func TestStoppedAlone(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, command := range []string{"$COUNTER", "$LEADER"} {
		sh := shell(t, s.Endpoint())
		// A shell in between does not stop, and so the terminal's own does not take it away.
		sh.Types("sh -c 'etcdlocker -v -t 60 -k /alone -- " + command + "; true'\r")
		locker := below(t, sh)
		child := programs.ChildOf(t, programs.ChildOf(t, locker))
		syscall.Kill(locker, syscall.SIGTSTP)
		stopped(t, child, true)
		stopped(t, locker, true)
		syscall.Kill(locker, syscall.SIGCONT)
		stopped(t, locker, false)
		stopped(t, child, false)
		comesOnce(t, sh, func(p *programs.Terminal, _ int) { p.Types(ctrlC) }, "SIGINT", locker)
		freed(t, sh, s.Client(t), "/alone")
	}
}

// TestCommandStopsItsGroup: an editor that is told to stop sends the SIGTSTP to its whole group
// when it is ready to. It has got that, and is not sent it again: it might have been continued by
// then.
func TestCommandStopsItsGroup(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.Types(`etcdlocker -v -t 60 -k /stops-group -- bash -c 'echo "counter: bel""ow $(($(ps -o ppid= $PPID)))."; trap "echo counter: g\"\"ot it" TSTP; ` +
		`trap "echo counter: e\"\"nds; exit" IO; while :; do read -r && kill -TSTP 0; done'` + "\r")
	locker := below(t, sh)
	comesOnce(t, sh, func(p *programs.Terminal, _ int) { p.Types("\r") }, "got it", locker)
	freed(t, sh, s.Client(t), "/stops-group")
}

// TestSessionEnds: when the first process of a session dies, the kernel sends HUP to the foreground
// group, and etcdlocker need not. The command looks for signals all the time: else two are one.
func TestSessionEnds(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for range 5 {
		file := filepath.Join(t.TempDir(), "hangups")
		sh := programs.CommandOnTerminal(t, 80, exec.Command("sh", "-c", `"$0" -v -e "$1" -k /hup -- sh -c '
			trap "echo hangup >> \"$0\"" HUP; trap "exit 3" TERM; echo "ready, below $PPID."; while :; do :; done' "$2"; true`,
			programs.Path("etcdlocker"), s.Endpoint(), file))
		guard, err := strconv.Atoi(sh.Between("ready, below ", "."))
		if err != nil {
			t.Fatal(err)
		}
		sh.Says(sh.Stdout, "command started") // what comes before comes from etcdlocker as well
		command, locker := programs.ChildOf(t, guard), programs.ChildOf(t, sh.Cmd.Process.Pid)
		sh.Cmd.Process.Kill()
		programs.AwaitFile(t, file)
		syscall.Kill(locker, syscall.SIGTERM)
		programs.AwaitEnd(t, strconv.Itoa(command))
		programs.AwaitEnd(t, strconv.Itoa(locker))
		if got, err := os.ReadFile(file); err != nil || string(got) != "hangup\n" {
			t.Errorf("%q, %v", got, err)
		}
		programs.CheckFree(t, s.Client(t), "/hup")
	}
}

// terminalSignals are those that a terminal sends to its foreground group, and how they come about.
var terminalSignals = []struct {
	name string
	act  func(p *programs.Terminal, i int)
	want string
}{
	{"Ctrl-C", func(p *programs.Terminal, _ int) { p.Types(ctrlC) }, "SIGINT"},
	{"Ctrl-\\", func(p *programs.Terminal, _ int) { p.Types(ctrlBackslash) }, "SIGQUIT"},
	{"resize", func(p *programs.Terminal, i int) { p.Resizes(uint16(30+i), 100) }, "SIGWINCH"},
}

// comesOnce checks that a counter gets one signal each time that something is done to its terminal.
// Two that come close together can look like one: so it is done more than once.
func comesOnce(t *testing.T, p *programs.Terminal, act func(p *programs.Terminal, i int), want string, locker int) {
	t.Helper()
	const times = 5
	begin := p.Seen
	for i := range times {
		act(p, i)
		p.Shows("counter: " + want)
	}
	if err := syscall.Kill(locker, syscall.SIGIO); err != nil {
		t.Fatal(err)
	}
	p.Shows("counter: ends")
	if shown := p.Stdout.String()[begin:p.Seen]; strings.Count(shown, "counter: ") != times+1 {
		t.Errorf("%d times %s: %q", times, want, shown)
	}
}

// TestTerminalOfAGroupWithoutANumber: as the first process of a pid namespace etcdlocker is in a
// process group from outside, which has no number there. The command is in it all the same, so that
// it may read from the terminal, and gets what is typed once.
func TestTerminalOfAGroupWithoutANumber(t *testing.T) {
	programs.NeedsNamespaces(t)
	s := etcdtest.Shared(t)
	unshared := func(t *testing.T, role string) *programs.Terminal {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return programs.CommandOnTerminal(t, 80, exec.Command("unshare", "--pid", "--fork", "--mount-proc", programs.Path("etcdlocker"),
			"-v", "-e", s.Endpoint(), "-k", "/no-number", "--", "env", roleVariable+"="+role, self))
	}
	t.Run("prompt", func(t *testing.T) {
		p := unshared(t, "prompt")
		usePrompt(t, p)
		p.Shows("prompt: 6 long, <nil>")
		if code := p.Code(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	for _, tt := range terminalSignals {
		if tt.want == "SIGQUIT" {
			continue // unshare dies of it
		}
		t.Run(tt.name, func(t *testing.T) {
			p := unshared(t, "counter")
			below(t, p)
			locker := programs.ChildOf(t, p.Cmd.Process.Pid)
			guard := programs.ChildOf(t, locker)
			if group, err := syscall.Getpgid(guard); err != nil || group != guard {
				t.Errorf("the guard %d is in process group %d, %v", guard, group, err)
			}
			comesOnce(t, p, tt.act, tt.want, locker)
			p.Code()
			programs.CheckFree(t, s.Client(t), "/no-number")
		})
	}
	t.Run("sent", func(t *testing.T) {
		p := unshared(t, "counter")
		below(t, p)
		locker := programs.ChildOf(t, p.Cmd.Process.Pid)
		comesOnce(t, p, func(*programs.Terminal, int) { syscall.Kill(locker, syscall.SIGINT) }, "SIGINT", locker)
		p.Code()
		programs.CheckFree(t, s.Client(t), "/no-number")
	})
}

// TestTerminalIsRestored: a command that is killed cannot undo what it did to the terminal.
func TestTerminalIsRestored(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	const spoils = `trap "" TERM; stty raw -echo < /dev/tty; echo spoi""led; while :; do sleep 0.05; done`
	for name, script := range map[string]string{
		"alone":         `etcdlocker -k /raw --grace 0.1 -- sh -c '` + spoils + `'`,
		"in a pipeline": `echo fed | etcdlocker -k /raw --grace 0.1 -- sh -c '` + spoils + `' | cat`,
		// The command is a shell, and the terminal listens to its job.
		"job of the command": `etcdlocker -k /raw --grace 0.1 -- bash -c 'set -m; trap "" TERM; sh -c '\''` + spoils + `'\''; :'`,
		// What the command leaves is killed after it has ended by itself.
		"child of the command": `etcdlocker -k /raw --grace 0.1 -- sh -c 'trap "exit 5" TERM; (` + spoils + `) & while :; do sleep 0.05; done'`,
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("env", append(shellVariables(t, s.Endpoint()), "sh", "-c", script+`; echo "co""de"; read -r x; echo "got $x."`)...)
			p := programs.CommandOnTerminal(t, 80, cmd)
			p.Shows("spoiled")
			p.Plain(false)
			if _, err := client.Delete(etcdtest.Context(t), "/raw"); err != nil {
				t.Fatal(err)
			}
			p.Shows(" lost: ")
			p.Shows("code")
			p.Plain(true)
			p.Types("it\r")
			p.Shows("got it.") // the terminal listens to the group again
			p.Code()
		})
	}
}

// TestTerminalIsLeft: a command that ends by itself may have set the terminal on purpose, as stty
// does.
func TestTerminalIsLeft(t *testing.T) {
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	modes := sh.Modes()
	sh.Types("etcdlocker -k /stty -- stty -echo\r")
	sh.Shows("$ ")
	if after := sh.Modes(); after == modes {
		t.Error("what stty did was undone")
	}
	sh.Ends()
}

// TestTerminalOfAnotherJob: etcdlocker in the background ends its command while another job has the
// terminal.
func TestTerminalOfAnotherJob(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	sh := shell(t, s.Endpoint())
	sh.Types("etcdlocker -k /background -- sleep 1000 & echo pid='<'$!'>'\r")
	pid := sh.Between("pid=<", ">")
	sh.Shows("$ ")
	programs.AwaitHeld(t, client, "/background")
	sh.Types("$EDITOR\r")
	sh.Shows("editor: opens")
	if _, err := client.Delete(etcdtest.Context(t), "/background"); err != nil {
		t.Fatal(err)
	}
	sh.Shows(" lost: ")
	programs.AwaitEnd(t, pid)
	sh.Plain(false)
	sh.Types("x")
	sh.Shows("editor: key 'x'")
	sh.Types("q")
	sh.Shows("editor: closes")
	sh.Ends()
}

// TestTooLateForTheTerminal: the command was killed while all were stopped, and this shell does not
// look after the terminal.
func TestTooLateForTheTerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	sh := programs.CommandOnTerminal(t, 80, exec.Command("env", append(shellVariables(t, s.Endpoint()), "sh", "-i")...))
	sh.Shows("$ ")
	const line = `(etcdlocker -t 5 -k /late -- sh -c 'stty -icanon -echo < /dev/tty; echo rea""dy; exec sleep 1000'; echo co""de $?. > /dev/tty)`
	for name, line := range map[string]string{"alone": line, "in a pipeline": "echo fed | " + line + " | cat"} {
		t.Run(name, func(t *testing.T) {
			modes := sh.Modes()
			sh.Types(line + "\r")
			sh.Shows("ready")
			sh.Types(ctrlZ)
			sh.Shows("Stopped")
			sh.Shows("$ ")
			programs.AwaitTreeEnd(t, "/late")
			sh.Types("fg\r")
			// Either etcdlocker or its guard was the first to look at the clock.
			if said := sh.Shows("code 2."); !strings.Contains(said, "could not be renewed in time") {
				t.Errorf("it says %q", said)
			}
			sh.Shows("$ ")
			if after := sh.Modes(); after != modes {
				t.Errorf("the terminal was set to %s and is set to %s", modes, after)
			}
		})
	}
	sh.Ends()
}

// TestCtrlCBeforeTheCommand: what is typed while the command is being started, and so has not
// reached it, ends it all the same. Its guard is stopped meanwhile, and so cannot start it.
func TestCtrlCBeforeTheCommand(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/ctrl-c/before"
	client := s.Client(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", key)
	before := programs.AwaitHeld(t, client, key).Kvs[0].ModRevision
	p := programs.OnTerminal(t, 200, s.Endpoint(), "-t", "60", "-k", key, "--", "sleep", "1000")
	p.Shows("place 1 in line")
	guard := programs.GuardOf(t, p.Run)
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	holder.Signal(syscall.SIGTERM)
	etcdtest.Await(t, "the lock", func(ctx context.Context) error {
		resp, err := client.Get(ctx, key)
		if err == nil && (len(resp.Kvs) == 0 || resp.Kvs[0].ModRevision == before) {
			err = errors.New("it is another's")
		}
		return err
	})
	// Until the guard is told to start it. Too short a time makes it another test that passes.
	time.Sleep(200 * time.Millisecond)
	p.Types(ctrlC)
	p.Shows("^C")
	if err := syscall.Kill(guard, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	p.Shows("stopped by SIGINT")
	if code := p.Code(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	programs.CheckFree(t, client, key)
}
