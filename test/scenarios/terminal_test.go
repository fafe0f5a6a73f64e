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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A terminal is a program that has a terminal to itself, as the leader of a session. What it shows
// is its stdout.
type terminal struct {
	*program
	tty  *os.File
	seen int // of what it shows, what shows has returned
}

// onTerminal runs etcdlocker on a terminal that is so many columns wide.
func onTerminal(t testing.TB, columns uint16, endpoint string, args ...string) *terminal {
	t.Helper()
	return commandOnTerminal(t, columns, exec.Command(filepath.Join(programs, "etcdlocker"), append([]string{"-e", endpoint}, args...)...))
}

// shell runs a shell with job control on a terminal. It finds etcdlocker, the server, and programs
// for the terminal in its environment.
func shell(t testing.TB, endpoint string) *terminal {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		etcdtest.Missing(t, "bash, which has job control")
	}
	p := commandOnTerminal(t, 200, exec.Command("env", append(shellVariables(t, endpoint), bash, "--norc", "--noprofile", "-i")...))
	p.shows("$ ")
	return p
}

func shellVariables(t testing.TB, endpoint string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	vars := []string{"PATH=" + programs + ":" + os.Getenv("PATH"), "ETCD_LOCK_HOST=" + endpoint, "PS1=$ "}
	for role := range screens {
		vars = append(vars, strings.ToUpper(role)+"=env "+roleVariable+"="+role+" "+self)
	}
	return vars
}

func commandOnTerminal(t testing.TB, columns uint16, cmd *exec.Cmd) *terminal {
	t.Helper()
	p := &program{t: t, cmd: cmd, stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
	p.cmd.Env = environment("TERM=xterm")
	tty, err := pty.StartWithSize(p.cmd, &pty.Winsize{Rows: 24, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		io.Copy(p.stdout, tty) // ends with an error when the last process has closed the terminal
		close(read)
	}()
	go func() {
		<-read
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end()
		tty.Close()
	})
	return &terminal{program: p, tty: tty}
}

// types sends what a keyboard would.
func (t *terminal) types(keys string) {
	t.t.Helper()
	if _, err := t.tty.WriteString(keys); err != nil {
		t.t.Fatal(err)
	}
}

const (
	ctrlC         = "\x03"
	ctrlZ         = "\x1a"
	ctrlBackslash = "\x1c"
)

// shows waits until the terminal shows a text after the one that it has waited for before, and
// returns what is between.
func (t *terminal) shows(text string) (between string) {
	t.t.Helper()
	etcdtest.Await(t.t, fmt.Sprintf("%q", text), func(context.Context) error {
		shown := t.stdout.String()[t.seen:]
		i := strings.Index(shown, text)
		if i >= 0 {
			t.seen += i + len(text)
			between = shown[:i]
			return nil
		}
		select {
		case <-t.done:
			t.t.Fatalf("it ended without showing %q: %q", text, shown)
		default:
		}
		return fmt.Errorf("it shows %q", shown)
	})
	return between
}

// between waits for a text and for one after it, and returns what is between.
func (t *terminal) between(from, to string) string {
	t.t.Helper()
	t.shows(from)
	return t.shows(to)
}

// modes asks the shell how the terminal is set for the programs that it runs.
func (t *terminal) modes() string {
	t.t.Helper()
	t.types("echo modes='<'$(stty -g)'>'\r")
	modes := t.between("modes=<", ">")
	t.shows("$ ")
	return modes
}

// resizes changes the terminal's size.
func (t *terminal) resizes(rows, columns uint16) {
	t.t.Helper()
	if err := pty.Setsize(t.tty, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		t.t.Fatal(err)
	}
}

// ends ends a shell.
func (t *terminal) ends() {
	t.t.Helper()
	t.types("exit\r")
	t.code()
}

// plain waits until the terminal is set as for plain programs, or until it is not: then it shows
// nothing of what is typed.
func (t *terminal) plain(want bool) {
	t.t.Helper()
	etcdtest.Await(t.t, fmt.Sprintf("a plain terminal: %v", want), func(context.Context) error {
		if flags := localFlags(t.t, t.tty); flags&unix.ECHO != 0 != want {
			return fmt.Errorf("%#x", flags)
		}
		return nil
	})
}

func TestWaitingLineOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	holder := locker(t, s.Endpoint(), "-k", "/line", "-i", "the-holder")
	held(t, s.Client(t), "/line")
	before := locker(t, s.Endpoint(), "-k", "/line", "true")
	before.says(before.stderr, "place 1 in line")

	waiter := onTerminal(t, 200, s.Endpoint(), "-k", "/line", "echo", "ran")
	waiter.says(waiter.stdout, `etcdlocker: waiting for lock "/line": held by "the-holder" since `)
	waiter.says(waiter.stdout, "place 2 in line")
	before.signal(syscall.SIGTERM)
	waiter.says(waiter.stdout, "place 1 in line")
	holder.signal(syscall.SIGTERM)
	if code := waiter.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	const erase = "\r\x1b[K"
	shown := waiter.shown()
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
	locker(t, s.Endpoint(), "-k", "/narrow", "-i", "the-holder")
	held(t, s.Client(t), "/narrow")
	const columns = 30
	waiter := onTerminal(t, columns, s.Endpoint(), "-k", "/narrow", "echo", "ran")
	waiter.says(waiter.stdout, "...")
	for _, line := range regexp.MustCompile(`\r|\n|\x1b\[K`).Split(waiter.stdout.String(), -1) {
		if utf8.RuneCountInString(line) >= columns {
			t.Errorf("%q does not fit into %d columns", line, columns)
		}
	}
	waiter.types(ctrlC)
	if code := waiter.code(); code != 130 || !strings.Contains(waiter.stdout.String(), "stopped by SIGINT while waiting") {
		t.Errorf("exit code %d, %q", code, waiter.stdout)
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
	locker(t, s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	const columns = 80
	waiter := onTerminal(t, columns, s.Endpoint(), "-k", key, "echo", "ran")
	waiter.says(waiter.stdout, "...")
	for _, line := range regexp.MustCompile(`\r|\n|\x1b\[K`).Split(waiter.stdout.String(), -1) {
		if n := utf8.RuneCountInString(line) + strings.Count(line, "鍵"); n >= columns {
			t.Errorf("%q takes %d of %d columns", line, n, columns)
		}
	}
}

// TestWaitingOnADumbTerminal: one line, and nothing that it could not erase.
func TestWaitingOnADumbTerminal(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/dumb"
	holder := locker(t, s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	waiter := commandOnTerminal(t, 80, exec.Command("env", "TERM=dumb", filepath.Join(programs, "etcdlocker"), "-e", s.Endpoint(), "-k", key, "echo", "ran"))
	waiter.shows("waiting for lock")
	awaitUpdates(t, s.Endpoint(), key)
	holder.signal(syscall.SIGTERM)
	waiter.code()
	if shown := waiter.shown(); strings.Contains(shown, "\x1b") || strings.Count(shown, "\n") != 2 {
		t.Errorf("it shows %q", shown)
	}
}

// awaitUpdates waits until one more who waits for a lock has brought its line up to date twice. By
// then everybody else who waits would have done so.
func awaitUpdates(t *testing.T, endpoint, key string) {
	t.Helper()
	twin := onTerminal(t, 200, endpoint, "-k", key, "true")
	for range 2 {
		twin.shows("\x1b[K")
	}
	twin.signal(syscall.SIGTERM)
	twin.code()
}

// TestWaitingInTheBackground: an etcdlocker that waits in the background does not write over what
// is typed, and shows its line when it comes to the foreground.
func TestWaitingInTheBackground(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/waits/background"
	holder := locker(t, s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	sh := shell(t, s.Endpoint())
	sh.types("etcdlocker -k " + key + " -- echo ran &\r")
	sh.shows("place 1 in line")
	begin := sh.seen
	sh.types("echo ty''ped")
	sh.shows("echo ty''ped")
	awaitUpdates(t, s.Endpoint(), key)
	sh.types("\r")
	sh.shows("typed\r\n")
	sh.shows("$ ")
	if shown := sh.stdout.String()[begin:sh.seen]; strings.Contains(shown, "waiting") || strings.Contains(shown, "\x1b[K") {
		t.Errorf("it writes over what is typed: %q", shown)
	}
	sh.types("fg\r")
	sh.shows("waiting for lock")
	holder.signal(syscall.SIGTERM)
	sh.shows("ran")
	sh.shows("$ ")
	sh.ends()
}

// TestTostop: an etcdlocker in the background says what it has to say also where the terminal stops
// who writes from there. Stopped, it would not renew the lock.
func TestTostop(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.types("stty tostop\r")
	sh.shows("$ ")
	sh.types("etcdlocker -v -k /tostop -- sh -c 'exit 7' & wait $!; echo code $?\r")
	sh.shows("code 7")
	sh.shows("$ ")
	sh.ends()
}

// TestCtrlCReachesTheCommandOnce: the terminal has sent it to the whole group already.
func TestCtrlCReachesTheCommandOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	p := onTerminal(t, 80, s.Endpoint(), "-v", "-k", "/ctrl-c", "--", "sh", "-c",
		`trap 'echo interrupted' INT; trap 'echo asked; exit 5' USR1; echo ready; while :; do sleep 0.05; done`)
	p.says(p.stdout, "ready")
	p.says(p.stdout, "command started") // what comes before comes from etcdlocker as well
	p.types(ctrlC)
	p.says(p.stdout, "interrupted")
	p.signal(syscall.SIGUSR1) // comes after whatever else etcdlocker has sent
	if code := p.code(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(p.stdout.String(), "interrupted"); n != 1 {
		t.Errorf("one Ctrl-C came %d times: %q", n, p.stdout)
	}
	free(t, s.Client(t), "/ctrl-c")
}

func TestTheCommandReadsFromTheTerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := onTerminal(t, 80, s.Endpoint(), "-k", "/prompt", "--", "sh", "-c",
		`stty -echo; printf 'password: '; read -r word; stty echo; echo; [ -t 0 ] && [ -t 1 ] && echo "it is ${#word} long"`)
	p.says(p.stdout, "password: ")
	p.types("secret\r")
	if code := p.code(); code != 0 || !strings.Contains(p.stdout.String(), "it is 6 long") {
		t.Errorf("exit code %d, %q", code, p.stdout)
	}
	if strings.Contains(p.stdout.String(), "secret") {
		t.Error("the terminal showed what must not be shown")
	}
}

// TestCtrlZ: command and renewing stop, the prompt comes back, and fg in time goes on as if nothing
// had been.
func TestCtrlZ(t *testing.T) {
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.types("etcdlocker -t 60 -k /ctrl-z -- sh -c 'echo rea''dy; read -r x; echo got $x; exit 7'\r")
	sh.says(sh.stdout, "ready")
	sh.types(ctrlZ)
	sh.shows("Stopped")
	sh.shows("$ ") // what comes before it may be thrown away
	sh.types("echo the pro''mpt\r")
	sh.says(sh.stdout, "the prompt")
	held(t, s.Client(t), "/ctrl-z")
	sh.types("fg; echo co''de $?\r")
	etcdtest.Await(t, "the command to go on", func(context.Context) error {
		sh.types(":\r") // fg throws away what was typed before it is done
		if !strings.Contains(sh.stdout.String(), "got :") {
			return errors.New(sh.stdout.String())
		}
		return nil
	})
	sh.says(sh.stdout, "code 7")
	free(t, s.Client(t), "/ctrl-z")
	sh.ends()
}

// TestCtrlZTooLong: the command is dead before the lock can go to somebody else, and fg says that
// it was lost.
func TestCtrlZTooLong(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	sh := shell(t, s.Endpoint())
	sh.types("etcdlocker -t 5 -k /too-long -- sh -c 'echo rea''dy; read -r x'\r")
	sh.says(sh.stdout, "ready")
	lease := held(t, client, "/too-long").Kvs[0].Lease
	sh.types(ctrlZ)
	sh.says(sh.stdout, "Stopped")
	endsBefore(t, client, "/too-long", lease)
	sh.types("fg; echo co''de $?\r")
	sh.says(sh.stdout, "code 2")
	sh.ends()
}

// TestScreens: programs that have the terminal to themselves work under a shell with job control as
// they do without etcdlocker. Ctrl-Z brings the prompt back, fg in time resumes them, and the
// terminal is set as before when they have ended.
func TestScreens(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		line string // that starts it
		use  func(*testing.T, *terminal)
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
			modes := sh.modes()
			sh.types(tt.line + "\r")
			tt.use(t, sh)
			if shown := sh.shows(tt.out); strings.Contains(shown, "secret") {
				t.Errorf("the terminal showed what must not be shown: %q", shown)
			}
			sh.shows("$ ")
			sh.types("echo codes='<'${PIPESTATUS[*]}'>'\r")
			if codes := sh.between("codes=<", ">"); strings.Trim(codes, " 0") != "" {
				t.Errorf("exit codes %s", codes)
			}
			sh.shows("$ ")
			if after := sh.modes(); after != modes {
				t.Errorf("the terminal was set to %s and is set to %s", modes, after)
			}
			sh.ends()
			free(t, s.Client(t), "/screen")
		})
	}
}

func useEditor(t *testing.T, sh *terminal) {
	sh.shows("editor: opens")
	sh.types("x")
	sh.shows("editor: key 'x'")
	sh.types(ctrlC)
	sh.shows(`editor: key '\x03'`)
	sh.resizes(30, 100)
	sh.shows("editor: 30 rows of 100")
	executed(t, sh)
	sh.types(ctrlZ)
	sh.shows("editor: leaves")
	suspended(sh, "editor")
	sh.types("y")
	sh.shows("editor: key 'y'")
	sh.types("q")
	sh.shows("editor: closes")
}

func usePager(t *testing.T, sh *terminal) {
	sh.shows("pager: opens")
	sh.types(" ")
	sh.shows(`pager: line "one"`)
	executed(t, sh)
	sh.types(ctrlZ)
	sh.shows("pager: leaves")
	suspended(sh, "pager")
	sh.types(" ")
	sh.shows(`pager: line "two"`)
	sh.types("q")
	sh.shows("pager: closes")
}

// executed waits until the shell's children are the programs that it runs. Until then they are
// shells, which ignore what stops a job: one that has not got a processor yet would go on without
// the others, and the shell would wait for it.
func executed(t *testing.T, sh *terminal) {
	t.Helper()
	etcdtest.Await(t, "the programs to be executed", func(context.Context) error {
		for _, pid := range etcdtest.Children(sh.cmd.Process.Pid) {
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
func suspended(sh *terminal, program string) {
	sh.shows("Stopped")
	sh.shows("$ ")
	sh.types("echo the pro''mpt\r")
	sh.shows("the prompt")
	sh.shows("$ ")
	sh.types("fg\r")
	sh.shows(program + ": is back")
	sh.plain(false)
}

func usePrompt(_ *testing.T, sh *terminal) {
	sh.shows("prompt: ")
	sh.plain(false)
	sh.types("secret\r")
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
			modes := sh.modes()
			sh.types(line + "\r")
			sh.shows("prompt: ")
			sh.plain(false)
			sh.types(ctrlC)
			sh.shows("stopped by SIGINT")
			sh.shows("$ ")
			if after := sh.modes(); after != modes {
				t.Errorf("the terminal was set to %s and is set to %s", modes, after)
			}
			sh.ends()
			free(t, s.Client(t), "/interrupted")
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
				sh.types(line + "\r")
				comesOnce(t, sh, tt.act, tt.want, below(t, sh))
				freed(t, sh, s.Client(t), "/once")
			})
		}
	}
}

// below waits for a counter, and for its etcdlocker (with -v) to say that it was started, and
// returns the process id of the latter. What is typed before that may come twice: the command may
// not have got it.
func below(t *testing.T, p *terminal) (locker int) {
	t.Helper()
	locker, err := strconv.Atoi(p.between("counter: below ", "."))
	if err != nil {
		t.Fatal(err)
	}
	p.says(p.stdout, "command started")
	return locker
}

// freed waits for the prompt, ends the shell, and checks that the lock is free.
func freed(t *testing.T, sh *terminal, client *clientv3.Client, key string) {
	t.Helper()
	sh.shows("$ ")
	sh.ends()
	free(t, client, key)
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
				sh.types("etcdlocker -v -k /sent -- " + command + "\r")
				locker := below(t, sh)
				comesOnce(t, sh, func(*terminal, int) { syscall.Kill(locker, sig) }, unix.SignalName(sig), locker)
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
	sh.types("etcdlocker -v -t 60 -k /ctrl-z/group -- $LEADER\r")
	locker := below(t, sh)
	sh.types(ctrlZ)
	sh.shows("Stopped")
	sh.shows("$ ")
	stopped(t, childOf(t, childOf(t, locker)), true)
	sh.types("fg\r")
	stopped(t, locker, false)
	comesOnce(t, sh, func(p *terminal, _ int) { p.types(ctrlC) }, "SIGINT", locker)
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
		sh.types("sh -c 'etcdlocker -v -t 60 -k /alone -- " + command + "; true'\r")
		locker := below(t, sh)
		child := childOf(t, childOf(t, locker))
		syscall.Kill(locker, syscall.SIGTSTP)
		stopped(t, child, true)
		stopped(t, locker, true)
		syscall.Kill(locker, syscall.SIGCONT)
		stopped(t, locker, false)
		stopped(t, child, false)
		comesOnce(t, sh, func(p *terminal, _ int) { p.types(ctrlC) }, "SIGINT", locker)
		freed(t, sh, s.Client(t), "/alone")
	}
}

// TestSessionEnds: when the first process of a session dies, the kernel sends HUP to the foreground
// group, and etcdlocker need not. The command looks for signals all the time: else two are one.
func TestSessionEnds(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for range 5 {
		file := filepath.Join(t.TempDir(), "hangups")
		sh := commandOnTerminal(t, 80, exec.Command("sh", "-c", `"$0" -v -e "$1" -k /hup -- sh -c '
			trap "echo hangup >> \"$0\"" HUP; trap "exit 3" TERM; echo "ready, below $PPID."; while :; do :; done' "$2"; true`,
			filepath.Join(programs, "etcdlocker"), s.Endpoint(), file))
		guard, err := strconv.Atoi(sh.between("ready, below ", "."))
		if err != nil {
			t.Fatal(err)
		}
		sh.says(sh.stdout, "command started") // what comes before comes from etcdlocker as well
		command, locker := childOf(t, guard), childOf(t, sh.cmd.Process.Pid)
		sh.cmd.Process.Kill()
		content(t, file)
		syscall.Kill(locker, syscall.SIGTERM)
		gone(t, strconv.Itoa(command))
		gone(t, strconv.Itoa(locker))
		if got, err := os.ReadFile(file); err != nil || string(got) != "hangup\n" {
			t.Errorf("%q, %v", got, err)
		}
		free(t, s.Client(t), "/hup")
	}
}

// terminalSignals are those that a terminal sends to its foreground group, and how they come about.
var terminalSignals = []struct {
	name string
	act  func(p *terminal, i int)
	want string
}{
	{"Ctrl-C", func(p *terminal, _ int) { p.types(ctrlC) }, "SIGINT"},
	{"Ctrl-\\", func(p *terminal, _ int) { p.types(ctrlBackslash) }, "SIGQUIT"},
	{"resize", func(p *terminal, i int) { p.resizes(uint16(30+i), 100) }, "SIGWINCH"},
}

// comesOnce checks that a counter gets one signal each time that something is done to its terminal.
// Two that come close together can look like one: so it is done more than once.
func comesOnce(t *testing.T, p *terminal, act func(p *terminal, i int), want string, locker int) {
	t.Helper()
	const times = 5
	begin := p.seen
	for i := range times {
		act(p, i)
		p.shows("counter: " + want)
	}
	if err := syscall.Kill(locker, syscall.SIGIO); err != nil {
		t.Fatal(err)
	}
	p.shows("counter: ends")
	if shown := p.stdout.String()[begin:p.seen]; strings.Count(shown, "counter: ") != times+1 {
		t.Errorf("%d times %s: %q", times, want, shown)
	}
}

// TestTerminalOfAGroupWithoutANumber: as the first process of a pid namespace etcdlocker is in a
// process group from outside, which has no number there. The command is in it all the same, so that
// it may read from the terminal, and gets what is typed once.
func TestTerminalOfAGroupWithoutANumber(t *testing.T) {
	needsNamespaces(t)
	s := etcdtest.Shared(t)
	unshared := func(t *testing.T, role string) *terminal {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return commandOnTerminal(t, 80, exec.Command("unshare", "--pid", "--fork", "--mount-proc", filepath.Join(programs, "etcdlocker"),
			"-v", "-e", s.Endpoint(), "-k", "/no-number", "--", "env", roleVariable+"="+role, self))
	}
	t.Run("prompt", func(t *testing.T) {
		p := unshared(t, "prompt")
		usePrompt(t, p)
		p.shows("prompt: 6 long, <nil>")
		if code := p.code(); code != 0 {
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
			locker := childOf(t, p.cmd.Process.Pid)
			guard := childOf(t, locker)
			if group, err := syscall.Getpgid(guard); err != nil || group != guard {
				t.Errorf("the guard %d is in process group %d, %v", guard, group, err)
			}
			comesOnce(t, p, tt.act, tt.want, locker)
			p.code()
			free(t, s.Client(t), "/no-number")
		})
	}
	t.Run("sent", func(t *testing.T) {
		p := unshared(t, "counter")
		below(t, p)
		locker := childOf(t, p.cmd.Process.Pid)
		comesOnce(t, p, func(*terminal, int) { syscall.Kill(locker, syscall.SIGINT) }, "SIGINT", locker)
		p.code()
		free(t, s.Client(t), "/no-number")
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
			p := commandOnTerminal(t, 80, cmd)
			p.shows("spoiled")
			p.plain(false)
			if _, err := client.Delete(etcdtest.Context(t), "/raw"); err != nil {
				t.Fatal(err)
			}
			p.shows(" lost: ")
			p.shows("code")
			p.plain(true)
			p.types("it\r")
			p.shows("got it.") // the terminal listens to the group again
			p.code()
		})
	}
}

// TestTerminalIsLeft: a command that ends by itself may have set the terminal on purpose, as stty
// does.
func TestTerminalIsLeft(t *testing.T) {
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	modes := sh.modes()
	sh.types("etcdlocker -k /stty -- stty -echo\r")
	sh.shows("$ ")
	if after := sh.modes(); after == modes {
		t.Error("what stty did was undone")
	}
	sh.ends()
}

// TestTerminalOfAnotherJob: etcdlocker in the background ends its command while another job has the
// terminal.
func TestTerminalOfAnotherJob(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	sh := shell(t, s.Endpoint())
	sh.types("etcdlocker -k /background -- sleep 1000 & echo pid='<'$!'>'\r")
	pid := sh.between("pid=<", ">")
	sh.shows("$ ")
	held(t, client, "/background")
	sh.types("$EDITOR\r")
	sh.shows("editor: opens")
	if _, err := client.Delete(etcdtest.Context(t), "/background"); err != nil {
		t.Fatal(err)
	}
	sh.shows(" lost: ")
	gone(t, pid)
	sh.plain(false)
	sh.types("x")
	sh.shows("editor: key 'x'")
	sh.types("q")
	sh.shows("editor: closes")
	sh.ends()
}

// TestTooLateForTheTerminal: the command was killed while all were stopped, and this shell does not
// look after the terminal.
func TestTooLateForTheTerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	sh := commandOnTerminal(t, 80, exec.Command("env", append(shellVariables(t, s.Endpoint()), "sh", "-i")...))
	sh.shows("$ ")
	const line = `(etcdlocker -t 5 -k /late -- sh -c 'stty -icanon -echo < /dev/tty; echo rea""dy; exec sleep 1000'; echo co""de $?. > /dev/tty)`
	for name, line := range map[string]string{"alone": line, "in a pipeline": "echo fed | " + line + " | cat"} {
		t.Run(name, func(t *testing.T) {
			modes := sh.modes()
			sh.types(line + "\r")
			sh.shows("ready")
			sh.types(ctrlZ)
			sh.shows("Stopped")
			sh.shows("$ ")
			treeGone(t, "/late")
			sh.types("fg\r")
			// Either etcdlocker or its guard was the first to look at the clock.
			if said := sh.shows("code 2."); !strings.Contains(said, "could not be renewed in time") {
				t.Errorf("it says %q", said)
			}
			sh.shows("$ ")
			if after := sh.modes(); after != modes {
				t.Errorf("the terminal was set to %s and is set to %s", modes, after)
			}
		})
	}
	sh.ends()
}

func localFlags(t testing.TB, tty *os.File) uint32 {
	t.Helper()
	conn, err := tty.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var flags *unix.Termios
	if err := errors.Join(conn.Control(func(fd uintptr) { flags, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }), err); err != nil {
		t.Fatal(err)
	}
	return flags.Lflag
}

// TestCtrlCBeforeTheCommand: what is typed while the command is being started, and so has not
// reached it, ends it all the same. Its guard is stopped meanwhile, and so cannot start it.
func TestCtrlCBeforeTheCommand(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/ctrl-c/before"
	client := s.Client(t)
	holder := locker(t, s.Endpoint(), "-k", key)
	before := held(t, client, key).Kvs[0].ModRevision
	p := onTerminal(t, 200, s.Endpoint(), "-t", "60", "-k", key, "--", "sleep", "1000")
	p.shows("place 1 in line")
	guard := guardOf(t, p.program)
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	holder.signal(syscall.SIGTERM)
	etcdtest.Await(t, "the lock", func(ctx context.Context) error {
		resp, err := client.Get(ctx, key)
		if err == nil && (len(resp.Kvs) == 0 || resp.Kvs[0].ModRevision == before) {
			err = errors.New("it is another's")
		}
		return err
	})
	// Until the guard is told to start it. Too short a time makes it another test that passes.
	time.Sleep(200 * time.Millisecond)
	p.types(ctrlC)
	p.shows("^C")
	if err := syscall.Kill(guard, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	p.shows("stopped by SIGINT")
	if code := p.code(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	free(t, client, key)
}
