package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// These have the test binary run a script as etcdlocker runs a command, and kill it in one of ways.
const (
	scriptVariable = "ETCDLOCK_TEST_SCRIPT"
	wayVariable    = "ETCDLOCK_TEST_WAY"
	limitVariable  = "ETCDLOCK_TEST_LIMIT" // how long that may take; a minute if it is empty
)

// noFiles is a way by which no file can be opened for a while.
const noFiles = "children, at first without files"

// preparedWay is one that was prepared when the script was started. It may need no more threads.
const preparedWay = "prepared"

// ways are what kills: each of the threads is enough by itself where there is no hurry.
var ways = map[string]func(*Tree){
	"all":  func(t *Tree) { t.Kill() },
	"tree": func(t *Tree) { go t.killer.killTree() },
	"children": func(t *Tree) {
		t.killer.killing.Store(true) // the walk says so
		go t.killer.killChildren()
	},
	preparedWay: func(t *Tree) { t.Kill() },
	noFiles: func(t *Tree) {
		var limit syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: limit.Max})
		t.killer.killing.Store(true)
		go t.killer.killChildren()
		time.Sleep(20 * time.Millisecond)
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	},
}

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == fillWord {
		etcdtest.Fill()
	}
	if os.Getenv(roomVariable) != "" {
		os.Exit(findRoom())
	}
	if script := os.Getenv(adoptVariable); script != "" {
		os.Exit(adoptScript(script))
	}
	if script := os.Getenv(scriptVariable); script != "" {
		os.Exit(killScript(script, os.Getenv(wayVariable)))
	}
	os.Exit(etcdtest.Main(m).Run())
}

// killScript runs a script until it says that it is ready, and then kills it and all that it has
// started until nothing is left.
func killScript(script, way string) int {
	ready, wake, err := os.Pipe()
	if err != nil {
		return 1
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 1
	}
	t, err := Start(Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(),
		Files: []uintptr{null.Fd(), wake.Fd(), null.Fd()},
	})
	if err != nil {
		return 1
	}
	warmUp()
	if way == preparedWay {
		t.killer.Prepare()
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return 1
	}
	before := threads()
	limit, err := time.ParseDuration(os.Getenv(limitVariable))
	if err != nil {
		limit = time.Minute
	}
	ways[way](t)
	select {
	case <-t.Empty():
	case <-time.After(limit):
		return 2
	}
	if way == preparedWay {
		for _, tid := range threads() {
			if !slices.Contains(before, tid) {
				println("thread", tid, "was started; before there were", len(before))
				return 3
			}
		}
	}
	t.Close()
	return 0
}

// threads returns the threads of this process.
func threads() []string {
	tids, _ := kernel.Names("/proc/self/task") // there is always one
	return tids
}

// warmUp has this process have two threads more, as etcdlocker has when it has got its lock.
func warmUp() {
	var both, threads sync.WaitGroup
	both.Add(2)
	for range 2 {
		threads.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			both.Done()
			both.Wait()
		})
	}
	threads.Wait()
}

// TestKiller: what runs below a process dies, however it resists, and the kernel says that nothing
// is left. Each generation of the chain lives for some hundred microseconds.
func TestKiller(t *testing.T) {
	for name, script := range map[string]string{
		"chain":          `trap '' TERM; link() { link & }; link; echo ready; exec sleep 1000`,
		"chain of chain": `trap '' TERM; link() { link & }; link; link; link; echo ready; exec sleep 1000`,
		"sessions":       `for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'trap "" TERM; sleep 1000 & wait' & done; echo ready; wait`,
		"deep":           `down() { [ "$1" = 0 ] || { (down $(($1 - 1))) & }; sleep 1000; }; down 30 & echo ready; wait`,
		"stopped":        `sh -c 'kill -STOP $$' & echo ready; kill -STOP $$`,
	} {
		for way := range ways {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				killed(t, exec.Command("/proc/self/exe"), script, way)
			})
		}
	}
}

// killed runs the test binary, and what that has started must be dead when it ends.
func killed(t *testing.T, cmd *exec.Cmd, script, way string, vars ...string) {
	t.Helper()
	mark := "ETCDLOCK_TEST_MARK=" + strconv.Itoa(os.Getpid()) + "-" + strings.ReplaceAll(t.Name(), " ", "-")
	cmd.Env = append(append(os.Environ(), scriptVariable+"="+script, wayVariable+"="+way, mark), vars...)
	cmd.WaitDelay = 5 * time.Second // for what is left
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for pid := range etcdtest.Processes(mark) {
		t.Errorf("process %d is left", pid)
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}
}

// users is how many users have been made up.
var users atomic.Int32

// newUser returns a user whom no other test has, so that nothing else counts among their processes.
func newUser() string { return strconv.Itoa(1_000_000 + 100*os.Getpid() + int(users.Add(1))) }

// copyOf returns a copy of a program with a mode, where all users find it.
func copyOf(t *testing.T, program string, mode os.FileMode) (file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "etcdlock-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file = dir + "/program"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, content, mode)); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestHidden: what /proc hides dies with the rest, and keeps nobody waiting. A program that may not
// be read cannot be seen in a /proc that was mounted with hidepid.
func TestHidden(t *testing.T) {
	binary, hidden := copyOf(t, "/proc/self/exe", 0o755), copyOf(t, "/bin/sh", 0o711)
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		`mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid="$1" --regid="$1" --clear-groups "$0"`, binary, newUser())
	script := `sh -c '"$HIDDEN" -c "sleep 1000 & echo ready; wait; sleep 1000" & sleep 1000' & wait`
	killed(t, cmd, script, "all", "HIDDEN="+hidden, limitVariable+"=1.5s")
}

// fillWord has the test binary fill up what limits the processes of its user.
const (
	fillWord   = "fill"
	fillScript = `sleep 0.2; "$SELF" fill & wait`
)

// TestNoRoom: a tree that uses up all processes and threads that its user may have dies, though
// none is left for who kills it.
func TestNoRoom(t *testing.T) {
	for _, way := range []string{"all", preparedWay} {
		t.Run(way, func(t *testing.T) { killedBelow(t, 100, fillScript, way) })
	}
}

// TestNarrow: what a user has started who may never have so many threads as a Killer prepares dies
// as well.
func TestNarrow(t *testing.T) {
	for name, script := range map[string]string{
		"chain": `trap '' TERM; link() { link & }; link; echo ready; exec sleep 1000`,
		"fill":  fillScript,
	} {
		t.Run(name, func(t *testing.T) { killedBelow(t, 18, script, "all") })
	}
}

// killedBelow is killed for a user who may have at most so many processes and threads.
func killedBelow(t *testing.T, most int, script, way string) {
	t.Helper()
	user, binary := newUser(), copyOf(t, "/proc/self/exe", 0o755)
	cmd := exec.Command("setpriv", "--reuid="+user, "--regid="+user, "--clear-groups", "prlimit", fmt.Sprint("--nproc=", most), binary)
	killed(t, cmd, script, way, "SELF="+binary, "GOMAXPROCS=1")
}

// TestStoppedAgain: what somebody has continued is stopped by the next walk, and is nothing new.
func TestStoppedAgain(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	stands := func(still bool) {
		t.Helper()
		etcdtest.Await(t, fmt.Sprint("stopped: ", still), func(context.Context) error {
			if p, ok := readProcess(cmd.Process.Pid); !ok || p.Stopped != still {
				return fmt.Errorf("it is %+v", p)
			}
			return nil
		})
	}
	k := NewKiller(nil, new(sync.Mutex), 0)
	for round := range 2 {
		if others, _ := k.visit(k.seen, syscall.SIGSTOP); others != (round == 0) {
			t.Errorf("round %d: others: %v", round, others)
		}
		stands(true)
		cmd.Process.Signal(syscall.SIGCONT)
		stands(false)
	}
}

// TestIsAbove: parents, and theirs, are above a process. It is not above itself.
func TestIsAbove(t *testing.T) {
	if !IsAbove(os.Getppid()) || IsAbove(os.Getpid()) || IsAbove(0) {
		t.Error("above are", IsAbove(os.Getppid()), IsAbove(os.Getpid()), IsAbove(0))
	}
}
