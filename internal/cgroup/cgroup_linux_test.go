package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestGroup: the control group alone finds everything that was born in it and what that has
// started, kills it, and stops it without anybody noticing. When it is removed, what is left goes
// on where it would be without.
func TestGroup(t *testing.T) {
	g := testGroup(t)
	fd, ok := g.FD()
	if !ok {
		t.Fatal("whoever has made the group has no descriptor of it")
	}
	// What runs under a lock sees neither the descriptor nor the lock on it.
	script := `trap '' TERM; setsid sh -c 'while :; do sleep 0.01; done' & while :; do sleep 0.01; done`
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await(t, "two in the group", func() bool { return len(g.Members()) >= 2 && g.Has(cmd.Process.Pid) })
	if g.Has(os.Getpid()) {
		t.Error("the test itself is said to be in the group")
	}

	same := Open(g.Path())
	same.Freeze()
	await(t, "all to stand still", func() bool { return isFrozen(t, g) })
	if !g.Frozen() {
		t.Error("not said to be frozen")
	}
	same.Thaw()
	if g.Frozen() {
		t.Error("said to be frozen")
	}

	left := exec.Command("sleep", "1000")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { left.Process.Kill(); left.Wait() }()
	g.Freeze() // what stands still can be killed
	g.Kill()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it lives")
	}
	await(t, "the group to be empty", func() bool { return len(g.Members()) == 0 })
	if err := g.write("cgroup.procs", strconv.Itoa(left.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	g.Remove()
	if g.Has(left.Process.Pid) {
		t.Error("what was left is in the group")
	}
	if _, err := os.Stat(g.dir); err == nil {
		t.Error("the group is there")
	}
}

// TestNested: groups below a group are removed with it, and those of etcdlockers among them that
// have started their commands stand still when it goes on.
func TestNested(t *testing.T) {
	g := testGroup(t)
	inner, waits, own := g.dir+"/"+Prefix+"1-a", g.dir+"/"+Prefix+"2-b", g.dir+"/of-the-command"
	innermost := inner + "/" + Prefix + "3-c"
	for _, dir := range []string{inner, innermost, waits, own} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("sleep", "1000")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if err := (&Group{dir: innermost}).write("cgroup.procs", strconv.Itoa(command.Process.Pid)); err != nil {
		t.Error(err)
	}
	g.Freeze()
	g.Thaw()
	for dir, want := range map[string]bool{g.dir: false, inner: true, innermost: true, waits: false, own: false} {
		if got := (&Group{dir: dir}).Frozen(); got != want {
			t.Errorf("%s: frozen %v, want %v", path.Base(dir), got, want)
		}
	}
	g.Kill()
	command.Wait()
	g.Remove()
	if _, err := os.Stat(g.dir); err == nil {
		t.Error("the group is there")
	}
}

// TestRemoveKeepsOthers: the group of another etcdlocker, whose guard lives, stays as it is when
// one around it is removed, with what it has in it. The last one takes along what is around it.
func TestRemoveKeepsOthers(t *testing.T) {
	g := testGroup(t)
	inner, waits := lockedIn(t, g, "1-a"), lockedIn(t, g, "2-b")
	own := &Group{dir: inner.dir + "/of-the-command"}
	if err := os.Mkdir(own.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sleepsIn(t, own)
	sleepsIn(t, g)
	inner.Freeze()
	g.Remove()
	if n := len(inner.Members()); n != 1 || !inner.Frozen() {
		t.Errorf("%d left in the group of another one, frozen: %v", n, inner.Frozen())
	}
	if n := len(g.Members()); n != 1 {
		t.Errorf("%d left in the group that was removed, and in those below it", n)
	}
	if _, err := os.Stat(waits.dir); err != nil {
		t.Errorf("the group of one that waits: %v", err)
	}
	waits.Remove()
	inner.Kill()
	await(t, "the other to be empty", func() bool { return len(inner.Members()) == 0 })
	inner.Remove()
	if _, err := os.Stat(g.dir); err == nil {
		t.Error("the group around the others is there")
	}
}

// TestRemoveAfterOthers: of groups one in the other, in whatever order they are removed, none is
// left, though what is in them goes on.
func TestRemoveAfterOthers(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		outer := testGroup(t)
		middle := lockedIn(t, outer, "1-a")
		all := []*Group{outer, middle, lockedIn(t, middle, "2-b")}
		for _, g := range all {
			sleepsIn(t, g)
		}
		for _, i := range order {
			all[i].Remove()
		}
		if _, err := os.Stat(outer.dir); err == nil {
			t.Errorf("removed in the order %v, the outermost is left", order)
		}
	}
}

// TestRemoveAtOnce: two groups that are removed at the same time, one in the other, both go, as
// does one around them that has ended before.
func TestRemoveAtOnce(t *testing.T) {
	for i := range 10 {
		outer := testGroup(t)
		middle := lockedIn(t, outer, "1-a")
		inner := lockedIn(t, middle, "2-b")
		for range 20 {
			sleepsIn(t, inner)
		}
		sleepsIn(t, middle)
		outer.Remove()
		var both sync.WaitGroup
		both.Go(inner.Remove)
		time.Sleep(time.Duration(i) * time.Millisecond / 2) // at any moment of it
		both.Go(middle.Remove)
		both.Wait()
		if _, err := os.Stat(outer.dir); err == nil {
			t.Errorf("removed %d half milliseconds after each other, the outermost is left", i)
		}
	}
}

// TestIsOurs: a service whose name begins like that of a group is no group.
func TestIsOurs(t *testing.T) {
	for dir, want := range map[string]bool{
		"/a/etcdlocker-4711-5eed":          true,
		"/a/etcdlocker-4711-5eed/b":        false,
		"/a/etcdlocker-nightly.service":    false,
		"/a/etcdlocker-4711":               false,
		"/a/etcdlocker-4711-night.service": false,
		"/a/etcdlocker-2-more.scope":       false,
		"/a":                               false,
	} {
		if isOurs(dir) != want {
			t.Errorf("%s: %v", dir, !want)
		}
	}
}

// TestSweep: what others have left behind goes, at whatever depth, and what is in use stays.
func TestSweep(t *testing.T) {
	g := testGroup(t)
	parent := path.Dir(g.dir)
	abandoned := parent + "/" + Prefix + strconv.Itoa(os.Getpid()) + "-01d"
	young := abandoned + "e"
	used := testGroup(t)
	for _, dir := range []string{abandoned, abandoned + "/" + Prefix + "1-a", young} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	defer syscall.Rmdir(young)
	old := time.Now().Add(-2 * newborn)
	for _, dir := range []string{abandoned, used.dir} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	g.Sweep()
	for dir, want := range map[string]bool{abandoned: false, young: true, used.dir: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path.Base(dir), err == nil, want)
		}
	}
}

// TestLeave: a process leaves the groups of all etcdlockers that it is in, and no other one.
func TestLeave(t *testing.T) {
	g := testGroup(t)
	before := groupOf("self")
	// Before the group is removed.
	t.Cleanup(func() { (&Group{dir: path.Dir(g.dir)}).write("cgroup.procs", "0") })
	own := g.dir + "/of-the-command"
	inner := &Group{dir: own + "/" + Prefix + "1-a"}
	for _, dir := range []string{own, inner.dir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := inner.write("cgroup.procs", "0"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to leave
		if err := Leave(); err != nil || groupOf("self") != before {
			t.Errorf("in %s, want %s: %v", groupOf("self"), before, err)
		}
	}
}

// TestNone: what has no group does without.
func TestNone(t *testing.T) {
	var g *Group
	g.Freeze()
	g.Thaw()
	g.Kill()
	g.Sweep()
	g.Remove()
	if _, ok := g.FD(); ok || g.Has(os.Getpid()) || g.Frozen() || len(g.Members()) > 0 || Open(g.Path()) != nil {
		t.Error("it is there")
	}
}

// await polls, as the kernel tells nobody.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	etcdtest.Await(t, what, func(context.Context) error {
		if !is() {
			return errors.New("not yet")
		}
		return nil
	})
}

func isFrozen(t *testing.T, g *Group) bool { return tells(t, g, "frozen 1") }

// tells reports whether the kernel tells something of a group.
func tells(t *testing.T, g *Group, what string) bool {
	t.Helper()
	events, err := os.ReadFile(g.dir + "/cgroup.events")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(events), what)
}

// TestRemoveMade: only groups of that name go, and none with a process in it.
func TestRemoveMade(t *testing.T) {
	mine, others, used := testGroup(t), testGroup(t), testGroup(t)
	fd, _ := used.FD()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for _, g := range []*Group{mine, used} {
		RemoveMade(strings.TrimPrefix(path.Base(g.dir), Prefix))
	}
	for g, want := range map[*Group]bool{mine: false, others: true, used: true} {
		if _, err := os.Stat(g.dir); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path.Base(g.dir), err == nil, want)
		}
	}
}

// TestRemoveDying: a group goes also if what is in it is about to end, and can be moved no more.
func TestRemoveDying(t *testing.T) {
	for size := 64; size <= 512; size *= 2 { // MiB that it has to give back
		g := testGroup(t)
		fd, _ := g.FD()
		hog := exec.Command("sh", "-c", fmt.Sprintf("head -c %dm /dev/zero | tail | sleep 1000", size))
		hog.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the memory to be in use", func() bool {
			return slices.ContainsFunc(g.Members(), func(pid int) bool { return residentMiB(pid) >= size })
		})
		g.Kill()
		go hog.Wait()
		await(t, "the others to be gone", func() bool { return len(g.Members()) <= 1 })
		if g.evict(path.Dir(g.dir)); !isPopulated(t, g) {
			continue // it was too fast
		}
		g.Remove()
		if _, err := os.Stat(g.dir); err == nil {
			t.Error("the group is there")
		}
		return
	}
	t.Log("whatever ends is gone too fast")
}

// residentMiB returns how much memory a process has, 0 if that is not known.
func residentMiB(pid int) int {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, resident int
	fmt.Sscan(string(content), &size, &resident)
	return resident * os.Getpagesize() >> 20
}

func isPopulated(t *testing.T, g *Group) bool { return tells(t, g, "populated 1") }

// testGroup makes a control group, or skips the test where that is not possible.
func testGroup(t *testing.T) *Group {
	t.Helper()
	g, err := Make(strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 16))
	if err != nil {
		etcdtest.Missing(t, err.Error())
	}
	t.Cleanup(g.Remove)
	return g
}

// lockedIn makes a group of an etcdlocker below another one, and locks it as its guard does.
func lockedIn(t *testing.T, above *Group, name string) *Group {
	t.Helper()
	g := &Group{dir: above.dir + "/" + Prefix + name}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := g.lock(); err != nil {
		t.Fatal(err)
	}
	return g
}

// sleepsIn has a process sleep in a group until the test is over.
func sleepsIn(t *testing.T, g *Group) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := g.write("cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/sys/fs/cgroup`: `/sys/fs/cgroup`, `a\040b\134c`: `a b\c`, `\04`: `\04`, `\999`: `\999`, ``: ``} {
		if got := unescape(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
