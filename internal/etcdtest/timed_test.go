package etcdtest

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ask asks for a turn that ends with the test.
func ask(t *testing.T, dir string) *turn {
	t.Helper()
	turn, err := askForTurn(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(turn.end)
	return turn
}

// comes waits for a turn.
func comes(t *testing.T, turn *turn) {
	t.Helper()
	if ok, err := turn.await(0); !ok || err != nil {
		t.Fatalf("the turn: %v, %v", ok, err)
	}
}

func TestTurnsExcludeEachOther(t *testing.T) {
	dir := t.TempDir()
	first := ask(t, dir)
	comes(t, first)
	second := ask(t, dir)
	if ok, err := second.await(100 * time.Millisecond); ok || err != nil {
		t.Errorf("two turns at once: %v, %v", ok, err)
	}
	first.end()
	comes(t, second)
}

// TestTurnIsNotInherited: a child that outlives its package does not keep the others out.
func TestTurnIsNotInherited(t *testing.T) {
	dir := t.TempDir()
	first := ask(t, dir)
	comes(t, first)
	child := exec.Command("sleep", "1000")
	if err := startTied(child); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	first.end()
	if ok, err := ask(t, dir).await(time.Minute); !ok || err != nil {
		t.Errorf("the turn after one that has left a child: %v, %v", ok, err)
	}
}

// TestTurnFileOfAllUsers: everybody can lock the file, nobody can write it, whatever the umask of
// its first user is.
func TestTurnFileOfAllUsers(t *testing.T) {
	dir := t.TempDir()
	defer unix.Umask(unix.Umask(0o077))
	ask(t, dir)
	info, err := os.Stat(filepath.Join(dir, turnFile))
	if err != nil || info.Mode() != 0o444 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("in the directory: %v, %v", files, err)
	}
}

// TestTurnFileOfAnotherUser: in a directory with the sticky bit the kernel is strict about files of
// others.
func TestTurnFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, turnFile)
	if err := makeTurnFile(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	comes(t, ask(t, dir))
}

// TestTurnFileIsAFile: what somebody else has put there is neither followed nor waited for.
func TestTurnFileIsAFile(t *testing.T) {
	for name, put := range map[string]func(file string) error{
		"link": func(file string) error { return os.Symlink("/dev/null", file) },
		"pipe": func(file string) error { return unix.Mkfifo(file, 0o666) },
		"dir":  func(file string) error { return os.Mkdir(file, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := put(filepath.Join(dir, turnFile)); err != nil {
				t.Fatal(err)
			}
			if turn, err := askForTurn(dir); err == nil {
				turn.end()
				t.Error("it was opened")
			}
		})
	}
}

// TestWaitingCounts: the tests' deadline is reduced by the time that was waited for a turn.
func TestWaitingCounts(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	value := flag.Lookup("test.timeout").Value
	was := value.String()
	t.Cleanup(func() { value.Set(was) })
	value.Set("10m")
	first := ask(t, dir)
	comes(t, first)
	const wait = 200 * time.Millisecond
	time.AfterFunc(wait, first.end)
	code := inTurn(func() int {
		if left := value.(flag.Getter).Get().(time.Duration); left > 10*time.Minute-wait/2 {
			t.Errorf("the tests have %v", left)
		}
		if ok, _ := ask(t, dir).await(10 * time.Millisecond); ok {
			t.Error("two turns at once")
		}
		return 7
	})
	if code != 7 {
		t.Errorf("exit code %d", code)
	}
}

// TestTurnThatDoesNotCome: tests are late and run beside others, they do not fail.
func TestTurnThatDoesNotCome(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	value := flag.Lookup("test.timeout").Value
	was := value.String()
	t.Cleanup(func() { value.Set(was) })
	value.Set("200ms")
	comes(t, ask(t, dir))
	if code := inTurn(func() int { return 7 }); code != 7 {
		t.Errorf("exit code %d", code)
	}
}

func TestFlagsGivenHavePrecedence(t *testing.T) {
	for args, want := range map[string]int{"": 8, "-n=3": 3} {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		n := flags.Int("n", 1, "")
		if args != "" {
			flags.Parse([]string{args})
		}
		setUnlessGiven(flags, "n", "8")
		if *n != want {
			t.Errorf("%q: %d", args, *n)
		}
	}
}
