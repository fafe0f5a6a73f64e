package etcdtest

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestChildIsSeen(t *testing.T) {
	before := running()
	cmd := exec.Command("sleep", "1000")
	if err := startTied(cmd); err != nil {
		t.Fatal(err)
	}
	p := StartProcess(t)
	err := newSince(before)
	if err == nil || !strings.Contains(err.Error(), `"sleep" "1000"`) {
		t.Errorf("with a child: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), memberName) {
		t.Errorf("a member counts: %v", err)
	}
	p.Kill()
	cmd.Process.Kill()
	Await(t, "the child's end, seen although nobody waited for it", func(context.Context) error {
		if err := newSince(before); err == nil || !strings.Contains(err.Error(), "state Z") {
			return fmt.Errorf("found: %v", err)
		}
		return nil
	})
	cmd.Wait()
	if err := newSince(before); err != nil {
		t.Errorf("without a child: %v", err)
	}
}

func TestGoroutineIsOurs(t *testing.T) {
	const module = "github.com/etcdlock/etcdlock"
	for stack, want := range map[string]bool{
		"goroutine 7 [select]:\n" + module + ".(*Lock).keep(0x1)\n\t/x.go:1\ncreated by " + module + ".(*Lock).Lock in goroutine 1\n": true,
		"goroutine 7 [select]:\ngo.etcd.io/etcd.x()\n\t/x.go:1\ncreated by " + module + ".New in goroutine 1\n":                       true,
		"goroutine 7 [select]:\n" + module + "/internal/wire.x()\n\t/x.go:1\ncreated by go.etcd.io/x in goroutine 1\n":                true,
		"goroutine 7 [select]:\ngo.etcd.io/etcd.x()\n\t/x.go:1\ncreated by go.etcd.io/etcd.y in goroutine 1\n":                        false,
		"goroutine 7 [select]:\n" + module + "_test.x()\n\t/x.go:1\ncreated by " + module + "_test.y in goroutine 1\n":                false,
		"goroutine 7 [select]:\n" + module + ".TestX(0x1)\n\t/x.go:1\ncreated by testing.(*T).Run in goroutine 1\n":                   false,
		"goroutine 7 [select]:\n" + module + "/internal/etcdtest.x()\n\t/x.go:1\n":                                                    false,
	} {
		if got := ours.MatchString(stack) && !ignored(stack); got != want {
			t.Errorf("%v, want %v:\n%s", got, want, stack)
		}
	}
}

func TestGoroutinesAreFound(t *testing.T) {
	for name, stack := range goroutines() {
		t.Errorf("%s is no leak:\n%s", name, stack)
	}
	NoLeaks(t)
}
