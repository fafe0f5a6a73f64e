//go:build linux

package taking

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestNestedOnItsOwnLock: a command that asks for a lock that it runs under would wait for itself.
// It is told so, whatever its environment says.
func TestNestedOnItsOwnLock(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	again := programs.Path("etcdlocker")
	for name, words := range map[string][]string{
		"at once":                {again, "-k", "/nested/at-once", "echo", "ran"},
		"with another between":   {again, "-k", "/nested/with-another-between/2", "--", again, "-k", "/nested/with-another-between", "echo", "ran"},
		"with no environment":    {"env", "-i", "PATH=" + os.Getenv("PATH"), again, "-e", s.Endpoint(), "-k", "/nested/with-no-environment", "echo", "ran"},
		"from an adopted orphan": {"sh", "-c", `("$0" -k /nested/from-an-adopted-orphan echo ran; echo $?) & wait`, again},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := "/nested/" + strings.ReplaceAll(name, " ", "-")
			p := programs.Locker(t, s.Endpoint(), append([]string{"-k", key, "--"}, words...)...)
			code := p.Code()
			if name == "from an adopted orphan" && code == 0 && p.Stdout.String() == "1\n" {
				code = 1
			} else if p.Stdout.String() != "" {
				t.Errorf("it ran: %q", p.Stdout)
			}
			if code != 1 || !strings.Contains(p.Stderr.String(), "is already held by the command that asks for it") {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			programs.CheckFree(t, s.Client(t), key)
		})
	}
}

// TestNestedConflict: it ends with the code that was asked for.
func TestNestedConflict(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), programs.Path("etcdlocker")
	for i, args := range [][]string{nil, {"--wait", "10m"}, {"--try"}} {
		for _, code := range []int{75, 0} {
			key := fmt.Sprintf("/nested/conflict-%d-%d", i, code)
			words := append([]string{"-k", key, "--", again, "-k", key, "--conflict-exit-code", fmt.Sprint(code)}, args...)
			p := programs.Locker(t, s.Endpoint(), append(words, "echo", "ran")...)
			if got := p.Code(); got != code || p.Stdout.String() != "" || saysBusy(p) != (code != 0) {
				t.Errorf("%q: exit code %d, %q %q", words, got, p.Stdout, p.Stderr)
			}
		}
	}
}

// TestNestedOnAnotherEtcd: a lock of the same name and token in another etcd is another lock.
func TestNestedOnAnotherEtcd(t *testing.T) {
	t.Parallel()
	ours, theirs := etcdtest.Start(t), etcdtest.Start(t)
	again := programs.Path("etcdlocker")
	finish := filepath.Join(t.TempDir(), "finish")
	holder := programs.Locker(t, theirs.Endpoint(), "-k", "/build", "--", "sh", "-c", `echo $ETCD_LOCK_REV; while [ ! -e "$0" ]; do sleep 0.05; done`, finish)
	holder.Says(holder.Stdout, "\n")
	p := programs.Locker(t, ours.Endpoint(), "-k", "/build", "--", "sh", "-c", `echo $ETCD_LOCK_REV; exec "$0" -e "$1" -k /build echo ran`, again, theirs.Endpoint())
	p.Says(p.Stderr, "place 1 in line")
	if err := os.WriteFile(finish, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, token := p.Code(), holder.Stdout.String(); code != 0 || p.Stdout.String() != token+"ran\n" {
		t.Errorf("exit code %d, %q %q beside token %q", code, p.Stdout, p.Stderr, token)
	}
}

// TestHandedOn: what etcdlocker hands its command is not taken for what the user says to another
// one.
func TestHandedOn(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	again := programs.Path("etcdlocker")
	tests := []struct {
		name   string
		script string
		code   int
		says   string // on stdout and stderr
	}{
		{"the endpoints", `"$0" -k /handed/2 echo ran`, 0, "ran\n"},
		{"no key", `"$0" echo ran`, 64, "no key: which lock is meant?"},
		{"no id", `"$0" -k /handed/2 sh -c 'echo "[$ETCD_LOCK_ID]"' | grep -v outer`, 0, "["},
		{"a key of its own", `ETCD_LOCK_KEY=/handed/3 "$0" sh -c 'echo $ETCDLOCK_HELD_KEY'`, 0, "/handed/3\n"},
		{"endpoints of its own", `ETCDCTL_ENDPOINTS=127.0.0.1:1 "$0" -k /handed/2 --connect-timeout 0.5 echo ran`, 1, "127.0.0.1:1"},
		{"a host of its own", `ETCD_LOCK_HOST=127.0.0.1:1 "$0" -k /handed/2 --connect-timeout 0.5 echo ran`, 1, "127.0.0.1:1"},
		{"not that it is a module", `"$0" -k /handed/2 echo "[$ETCD_CHILD_IS_NODE]"`, 0, "[]\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key := "/handed/" + strings.ReplaceAll(tt.name, " ", "-")
			script := strings.ReplaceAll(tt.script, "/handed/2", key+"/2")
			p := programs.Start(t, []string{"ETCD_CHILD_IS_NODE=0"}, "etcdlocker", "-e", s.Endpoint(), "-k", key, "-i", "outer", "--", "sh", "-c", script, again)
			code := p.Code()
			if said := p.Stdout.String() + p.Stderr.String(); code != tt.code || !strings.Contains(said, tt.says) {
				t.Errorf("exit code %d, %q", code, said)
			}
		})
	}
}
