//go:build linux

package taking

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/test/programs"
)

// serverIn returns a directory for an embedded etcd. Its server is stopped when the test ends.
func serverIn(t testing.TB, dir string) string {
	t.Helper()
	t.Cleanup(func() {
		cmd := exec.Command(programs.Path("etcdlockctl"), "serve", "--stop", "--dir", dir)
		if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "no server runs") {
			t.Errorf("stopping the server: %v: %s", err, out)
		}
		if pid, err := os.ReadFile(filepath.Join(dir, "lock")); err == nil {
			programs.AwaitEnd(t, strings.TrimSpace(string(pid)))
		}
	})
	return dir
}

// TestEmbedded: the server that the first one starts serves the second, and its files are its
// owner's alone. A log that has become large begins anew.
func TestEmbedded(t *testing.T) {
	state := t.TempDir()
	dir := serverIn(t, filepath.Join(state, "etcdlock", "etcd"))
	vars := []string{"XDG_STATE_HOME=" + state}
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "log"), make([]byte, 2<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	first := programs.Start(t, vars, "etcdlocker", "--embedded", "-k", "/demo/lock", "--", "echo", "I hold the lock")
	if code := first.Code(); code != 0 || first.Stdout.String() != "I hold the lock\n" {
		t.Fatalf("exit code %d, %q", code, first.Stderr)
	}
	if want := "etcdlocker: started etcd in " + dir + ": its locks are those of this machine and user alone\n"; first.Said() != want {
		t.Errorf("it says %q", first.Stderr)
	}
	second := programs.Start(t, vars, "etcdlocker", "--embedded", "-k", "/demo/lock", "true")
	if code := second.Code(); code != 0 || second.Said() != "" {
		t.Errorf("the second: exit code %d, %q", code, second.Stderr)
	}
	private(t, dir)
	if said, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || len(said) > 0 {
		t.Errorf("the server's log: %q, %v", said, err)
	}
}

// TestEmbeddedInheritsNothing: whoever waits for the end of a pipe that the caller of etcdlocker
// had open does not wait for the server.
func TestEmbeddedInheritsNothing(t *testing.T) {
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	cmd := exec.Command(programs.Path("etcdlocker"), "--embedded="+dir, "-k", "/inherits", "true")
	var pipes []*os.File
	for range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		pipes, cmd.ExtraFiles = append(pipes, r), append(cmd.ExtraFiles, w)
	}
	p := programs.StartCommand(t, nil, cmd)
	for _, w := range cmd.ExtraFiles {
		w.Close()
	}
	if code := p.Code(); code != 0 {
		t.Fatalf("exit code %d, %q", code, p.Stderr)
	}
	for i, r := range pipes {
		r.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("descriptor %d: %v", 3+i, err)
		}
	}
}

// TestEmbeddedStandsApart: the server is not in the control group of the command that was the first
// to need it, and process lists show what it is.
func TestEmbeddedStandsApart(t *testing.T) {
	group := programs.ControlGroup(t)
	s := etcdtest.Shared(t)
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	p := programs.LockerIn(t, group, s.Endpoint(), "-k", "/apart", "--", "sh", "-c", `"$0" --embedded="$1" -k /inner cat /proc/self/cgroup && exec sleep 1000`,
		programs.Path("etcdlocker"), dir)
	p.Says(p.Stdout, "/"+cgroup.Prefix)
	pid := programs.AwaitFile(t, filepath.Join(dir, "lock"))
	for file, want := range map[string]string{
		"cgroup":  "0::/" + filepath.Base(group) + "\n",
		"comm":    "etcdlockctl\n",
		"cmdline": "etcdlockctl\x00serve\x00--dir\x00" + dir + "\x00",
	} {
		if got, err := os.ReadFile(filepath.Join("/proc", pid, file)); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
}

// TestEmbeddedStop: the server is ended from where its process id is known, and nothing else is:
// the id that a file tells is that of another pid namespace.
func TestEmbeddedStop(t *testing.T) {
	programs.NeedsNamespaces(t)
	// Not serverIn: the id in the file is not the server's.
	dir := filepath.Join(t.TempDir(), "etcd")
	control := programs.Path("etcdlockctl")
	elsewhere := []string{"--pid", "--fork", "--kill-child", "--mount-proc", control, "serve", "--dir", dir}
	server := programs.StartCommand(t, nil, exec.Command("unshare", elsewhere...))
	server.Says(server.Stdout, "answers")
	p := programs.StartCommand(t, nil, exec.Command("unshare", append(elsewhere, "--stop")...))
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "another pid namespace") {
		t.Errorf("from another namespace: exit code %d, %q", code, p.Stderr)
	}
	if p := programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/stop", "true"); p.Code() != 0 || p.Said() != "" {
		t.Errorf("it does not answer any more: exit code %d, %q", p.Code(), p.Stderr)
	}
	if p := programs.Start(t, nil, "etcdlockctl", "serve", "--stop", "--dir", dir); p.Code() != 0 {
		t.Errorf("from above: exit code %d, %q", p.Code(), p.Stderr)
	}
	if code := server.Code(); code != 0 {
		t.Errorf("the server: exit code %d, %q", code, server.Stderr)
	}
}

// holdsEmbedded runs an etcdlocker on the embedded etcd of a directory. Its command runs until
// finish is called, which checks that it has ended by itself.
func holdsEmbedded(t *testing.T, dir, key string) (holder *programs.Run, finish func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "finish")
	holder = programs.Start(t, nil, "etcdlocker", "-v", "-t", "10", "-r", "1", "--embedded="+dir, "-k", key, "--",
		"sh", "-c", `echo ready; while [ ! -e "$0" ]; do sleep 0.05; done; exit 7`, file)
	holder.Says(holder.Stdout, "ready")
	return holder, func() {
		t.Helper()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if code := holder.Code(); code != 7 {
			t.Errorf("the holder: exit code %d, %q", code, holder.Stderr)
		}
	}
}

// TestEmbeddedKilled: those who need a server that was killed start it again in time for their
// locks. Neither the command that runs nor the one that waits notices, and the new server is
// nobody's to end.
func TestEmbeddedKilled(t *testing.T) {
	t.Parallel()
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	holder, finish := holdsEmbedded(t, dir, "/killed")
	waiter := programs.Start(t, nil, "etcdlocker", "-t", "10", "--embedded="+dir, "-k", "/killed", "echo", "ran")
	waiter.Says(waiter.Stderr, "waiting for lock")
	holder.Renews(2) // it has its real-time priority by now
	for range 2 {
		killServer(t, dir)
		holder.Renews(2)
		pid, err := strconv.Atoi(programs.AwaitFile(t, filepath.Join(dir, "lock")))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []*programs.Run{holder, waiter} {
			if slices.Contains(etcdtest.Children(p.Cmd.Process.Pid), pid) {
				t.Errorf("the server, process %d, is a child of an etcdlocker", pid)
			}
		}
		if policy, _, err := kernel.Scheduler(pid); err != nil || policy != kernel.SchedOther {
			t.Errorf("the server's policy is %d, %v", policy, err)
		}
	}
	finish()
	if code := waiter.Code(); code != 0 || waiter.Stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %q", code, waiter.Stderr)
	}
	if started := strings.Count(holder.Stderr.String()+waiter.Stderr.String(), "has been started again"); started != 2 {
		t.Errorf("it was started again %d times, want 2: %q, %q", started, holder.Stderr, waiter.Stderr)
	}
}

// TestEmbeddedWithoutItsDirectory: while a server lives, and somebody holds a lock, nobody gets the
// lock from a new server in a directory of the same name. When the lock is released, the server
// ends.
func TestEmbeddedWithoutItsDirectory(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"renamed": func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
			holder, finish := holdsEmbedded(t, dir, "/gone")
			server := programs.AwaitFile(t, filepath.Join(dir, "lock"))
			if err := remove(dir); err != nil {
				t.Fatal(err)
			}
			second := programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/gone", "--try", "echo", "ran")
			if code := second.Code(); code != 1 || second.Stdout.String() != "" || !strings.Contains(second.Stderr.String(), "was removed or renamed") {
				t.Errorf("the second: exit code %d, %q, %q", code, second.Stdout, second.Stderr)
			}
			holder.Renews(2)
			finish()
			programs.AwaitEnd(t, server)
			if third := programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/gone", "echo", "ran"); third.Code() != 0 {
				t.Errorf("the third: %q", third.Stderr)
			}
		})
	}
}

// TestEmbeddedWithoutItsFiles: what tells where a server is can be cleaned away, and the locks
// stay.
func TestEmbeddedWithoutItsFiles(t *testing.T) {
	t.Parallel()
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	holder, finish := holdsEmbedded(t, dir, "/files")
	for _, name := range []string{"endpoint", "etcd.sock"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		p := programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/files/2", "echo", "ran")
		if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" {
			t.Errorf("without %s: exit code %d, %q", name, code, p.Stderr)
		}
		holder.Renews(2)
	}
	finish()
}

// TestEmbeddedOfACommand: a server that a command was the first to need is not waited for with it,
// and is ended with it; others who need that server keep their locks.
func TestEmbeddedOfACommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, orphans := range []string{"leave", "wait", "kill"} {
		dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
		finish := filepath.Join(t.TempDir(), "finish")
		outer := programs.Locker(t, s.Endpoint(), "-k", "/embedded-outer", "--orphans="+orphans, "--", "sh", "-c",
			`"$0" --embedded="$1" -k /inner echo ready; while [ ! -e "$2" ]; do sleep 0.05; done`, programs.Path("etcdlocker"), dir, finish)
		outer.Says(outer.Stdout, "ready")
		bystander := programs.Start(t, nil, "etcdlocker", "-v", "-t", "10", "-r", "1", "--embedded="+dir, "-k", "/bystander")
		bystander.Says(bystander.Stdout, "/bystander")
		if err := os.WriteFile(finish, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if code := outer.Code(); code != 0 || strings.Contains(outer.Stderr.String(), "the command left") {
			t.Errorf("%s: exit code %d, %q", orphans, code, outer.Stderr)
		}
		bystander.Renews(2)
		bystander.Signal(syscall.SIGTERM)
		if code := bystander.Code(); code != 143 {
			t.Errorf("%s: the bystander: exit code %d, %q", orphans, code, bystander.Stderr)
		}
	}
}

// TestPretendedServer: a process of a command's that is called like an embedded etcd does not
// outlive the lock, neither when that is lost nor when what is left is waited for.
func TestPretendedServer(t *testing.T) {
	t.Parallel()
	dir := programs.OpenDir(t)
	// It has no children, like a server.
	script := []byte("trap '' TERM; echo ready; while :; do read line < fifo; done\n")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "serve"), script, 0o644), syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, uid := range programs.Users() {
		for ends, after := range map[string]string{"lost": "exec sleep 1000", "waited for": "sleep 0.5"} {
			t.Run(name+" "+ends, func(t *testing.T) {
				t.Parallel()
				s := etcdtest.Shared(t)
				key := "/pretended/" + name + "/" + after
				p := programs.LockerOf(t, uid, nil, s.Endpoint(), "-k", key, "--grace", "0.2", "--orphans=wait", "--", "bash", "-c",
					"cd "+dir+"; exec -a etcdlockctl sh serve & "+after)
				p.Says(p.Stdout, "ready")
				if ends == "lost" {
					p.Signal(syscall.SIGKILL)
					programs.AwaitTreeEnd(t, key)
					return
				}
				if code := p.Code(); code != 0 {
					t.Errorf("exit code %d, %q", code, p.Stderr)
				}
				if left := programs.Marked("ETCD_LOCK_KEY=" + key); len(left) > 0 {
					t.Errorf("running without the lock: %v", left)
				}
				programs.CheckFree(t, s.Client(t), key)
			})
		}
	}
}

// killServer kills the server of a directory, and waits until that is done.
func killServer(t testing.TB, dir string) {
	t.Helper()
	pid := programs.AwaitFile(t, filepath.Join(dir, "lock"))
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.Kill(n, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	programs.AwaitEnd(t, pid)
}

// private checks that nobody but the owner can do anything with what is below a directory.
func private(t testing.TB, dir string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: mode %v, %v", dir, info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

// TestEmbeddedLongPath: a socket cannot be bound to a path of more than 107 bytes, so it is
// elsewhere.
func TestEmbeddedLongPath(t *testing.T) {
	run := t.TempDir()
	dir := serverIn(t, filepath.Join(t.TempDir(), strings.Repeat("long/", 25), "etcd"))
	p := programs.Start(t, []string{"XDG_RUNTIME_DIR=" + run}, "etcdlocker", "--embedded="+dir, "-k", "/long", "echo", "ran")
	if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" {
		t.Fatalf("exit code %d, %q", code, p.Stderr)
	}
	endpoint := programs.AwaitFile(t, filepath.Join(dir, "endpoint"))
	if !strings.HasPrefix(endpoint, "unix://"+run+"/etcdlock/") || len(endpoint) > len("unix://")+107 {
		t.Errorf("the endpoint is %q", endpoint)
	}
	private(t, dir)
	private(t, filepath.Join(run, "etcdlock"))
}

// TestEmbeddedAwkwardPath: whatever the directory is called, the server is reached in it, by
// commands that use the endpoint they were given as well.
func TestEmbeddedAwkwardPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{`a b%20c?d#e,f"g'h\i@j:k;l&m=n`, "ä", "a\nb"} {
		dir := serverIn(t, filepath.Join(t.TempDir(), name))
		p := programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/outer", "--", programs.Path("etcdlocker"), "-k", "/inner", "echo", "ran")
		if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" {
			t.Errorf("%q: exit code %d, %q", dir, code, p.Stderr)
		}
	}
}

// TestEmbeddedLeavesWhenIdle: not while somebody holds a lock, and soon after.
func TestEmbeddedLeavesWhenIdle(t *testing.T) {
	t.Parallel()
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	server := programs.Start(t, nil, "etcdlockctl", "serve", "--dir", dir, "--idle-exit", "5s")
	server.Says(server.Stdout, "answers")
	p := programs.Start(t, nil, "etcdlocker", "-v", "-r", "0.3", "--embedded="+dir, "-k", "/idle")
	p.Says(p.Stdout, "/idle")
	p.Renews(2)
	p.Signal(syscall.SIGTERM)
	p.Code()
	if code := server.Code(); code != 0 || server.Stderr.String() != "" {
		t.Errorf("exit code %d, %q", code, server.Stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "endpoint")); err == nil {
		t.Errorf("it left its endpoint behind; etcdlocker says %q", p.Stderr)
	}
}

// TestEmbeddedUnusable: directories that others own or may write to, and a missing etcdlockctl.
func TestEmbeddedUnusable(t *testing.T) {
	dir := t.TempDir()
	open, file := filepath.Join(dir, "open"), filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o770), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		dir, says, hint string
		owner           int
	}{
		"open":    {open, "can be written by others", "yours alone", 0},
		"a file":  {file, "not a directory", "yours alone", 0},
		"foreign": {filepath.Join(dir, "foreign"), "belongs to another user", "yours alone", programs.Nobody},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.owner != 0 {
				if os.Geteuid() != 0 {
					etcdtest.Missing(t, "root")
				}
				if err := errors.Join(os.Mkdir(tt.dir, 0o700), os.Chown(tt.dir, tt.owner, tt.owner)); err != nil {
					t.Fatal(err)
				}
			}
			p := programs.Start(t, nil, "etcdlocker", "--embedded="+tt.dir, "-k", "/x", "echo", "ran")
			if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), tt.says) || !strings.Contains(p.Stderr.String(), "hint: ") ||
				!strings.Contains(p.Stderr.String(), tt.hint) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
		})
	}
	t.Run("no etcdlockctl", func(t *testing.T) {
		alone := filepath.Join(dir, "etcdlocker")
		if err := os.Link(programs.Path("etcdlocker"), alone); err != nil {
			t.Fatal(err)
		}
		p := programs.StartCommand(t, []string{"PATH=/usr/bin:/bin"}, exec.Command(alone, "--embedded="+filepath.Join(dir, "etcd"), "-k", "/x", "echo", "ran"))
		if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "hint: install etcdlockctl beside etcdlocker") {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
	})
}

// TestEmbeddedAndTenAtOnce: ten start at once on an empty directory, and again after the server was
// killed.
func TestEmbeddedAndTenAtOnce(t *testing.T) {
	t.Parallel()
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	counter := filepath.Join(t.TempDir(), "turns")
	round := func() {
		var all []*programs.Run
		for range 10 {
			all = append(all, programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/ten", "--", "sh", "-c",
				`set -C; : > `+counter+`.lock || exit 9; echo turn >> `+counter+`; rm `+counter+`.lock`))
		}
		started := 0
		for _, p := range all {
			if code := p.Code(); code != 0 {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			started += strings.Count(p.Stderr.String(), "started etcd in")
		}
		if started != 1 {
			t.Errorf("%d servers were started, want one", started)
		}
	}
	round()
	killServer(t, dir)
	round()
	if turns, err := os.ReadFile(counter); err != nil || strings.Count(string(turns), "\n") != 20 {
		t.Errorf("%d turns, %v", strings.Count(string(turns), "\n"), err)
	}
	if p := programs.Start(t, nil, "etcdlockctl", "serve", "--dir", dir); p.Code() != 75 || !strings.Contains(p.Stderr.String(), "another server") {
		t.Errorf("a second server: %d, %q", p.Code(), p.Stderr)
	}
	if p := programs.Start(t, nil, "etcdlockctl", "serve", "--stop", "--dir", dir); p.Code() != 0 {
		t.Errorf("--stop: %s", p.Stderr)
	}
	if p := programs.Start(t, nil, "etcdlockctl", "serve", "--stop", "--dir", dir); p.Code() != 1 {
		t.Errorf("--stop without a server: %d", p.Code())
	}
}

// TestListEmbedded: list and show find the locks of the embedded etcd by its directory, also as
// etcdlocker hints, and by the socket that it names. They start none.
func TestListEmbedded(t *testing.T) {
	t.Parallel()
	dir := serverIn(t, filepath.Join(t.TempDir(), "etcd"))
	none := programs.Start(t, nil, "etcdlockctl", "list", "--embedded="+dir)
	if code := none.Code(); code != 1 || !strings.Contains(none.Stderr.String(), "no server runs") || !strings.Contains(none.Stderr.String(), "hint: etcdlocker --embedded="+dir+" starts it ") {
		t.Errorf("without a server: exit code %d, %q, %s", code, none.Stdout, none.Stderr)
	}
	_, finish := holdsEmbedded(t, dir, "/list/embedded")
	try := programs.Start(t, nil, "etcdlocker", "--embedded="+dir, "-k", "/list/embedded", "--try", "true")
	if code := try.Code(); code != 1 || !strings.Contains(try.Stderr.String(), "etcdlockctl show --embedded="+dir+" /list/embedded says who") {
		t.Errorf("--try: exit code %d, %s", code, try.Stderr)
	}
	for _, where := range [][]string{{"--embedded=" + dir}, {"-e", strings.TrimSpace(etcdtest.Read(t, filepath.Join(dir, "endpoint")))}} {
		// What names another etcd does not count beside these.
		elsewhere := []string{"ETCD_LOCK_HOST=elsewhere.invalid"}
		list := programs.Start(t, elsewhere, "etcdlockctl", append([]string{"list", "-o", "key"}, where...)...)
		if code := list.Code(); code != 0 || list.Stdout.String() != "/list/embedded\n" {
			t.Errorf("list: exit code %d, %q, %s", code, list.Stdout, list.Stderr)
		}
		show := programs.Start(t, elsewhere, "etcdlockctl", append([]string{"show", "/list/embedded"}, where...)...)
		if code := show.Code(); code != 0 || !strings.Contains(show.Stdout.String(), "etcdlockctl break "+strings.Join(where, " ")+" /list/embedded --token ") {
			t.Errorf("show: exit code %d, %q, %s", code, show.Stdout, show.Stderr)
		}
	}
	finish()
}

// TestSetEmbedded: the embedded etcd gives several locks as any other does.
func TestSetEmbedded(t *testing.T) {
	t.Parallel()
	dir := serverIn(t, t.TempDir())
	cmd := exec.Command(programs.Path("etcdlocker"), append(append([]string{"--embedded=" + dir}, programs.Keys("/b", "/a")...), "--", "sh", "-c", `echo "$ETCDLOCK_HELD"`)...)
	p := programs.StartCommand(t, nil, cmd)
	if code := p.Code(); code != 0 || !strings.HasPrefix(p.Stdout.String(), `[{"key":"/a","token":`) {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
}

// TestVerboseServer: -v of a server says on stderr what etcd says. In the background that goes to
// the log from when the server answers. Without -v nothing is said.
func TestVerboseServer(t *testing.T) {
	t.Parallel()
	const debug = "\tdebug\t"
	for _, verbose := range []bool{false, true} {
		dir := serverIn(t, t.TempDir())
		args := []string{"serve", "--dir", dir}
		if verbose {
			args = append(args, "-v")
		}
		p := programs.Start(t, nil, "etcdlockctl", args...)
		p.Says(p.Stdout, "answers")
		p.Signal(syscall.SIGTERM)
		if code := p.Code(); code != 0 || strings.Contains(p.Stderr.String(), debug) != verbose {
			t.Errorf("verbose %v: exit code %d, %q", verbose, code, p.Stderr)
		}
		p = programs.Start(t, nil, "etcdlockctl", append(args, "--background")...)
		if code := p.Code(); code != 0 || strings.Contains(p.Stderr.String(), debug) != verbose {
			t.Errorf("verbose %v, in the background: exit code %d, %q", verbose, code, p.Stderr)
		}
		if p := programs.Start(t, nil, "etcdlockctl", "serve", "--stop", "--dir", dir); p.Code() != 0 {
			t.Errorf("--stop: %s", p.Stderr)
		}
		if log := etcdtest.Read(t, filepath.Join(dir, "log")); strings.Contains(log, debug) != verbose {
			t.Errorf("verbose %v: the log says %q", verbose, log)
		}
	}
}
