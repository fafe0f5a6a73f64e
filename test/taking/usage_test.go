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

// TestBadInput: each is refused with a sentence on one line that names what is wrong, and touches
// nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	dir := t.TempDir()
	notExecutable := filepath.Join(dir, "plain")
	if err := os.WriteFile(notExecutable, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		env  []string
		args []string
		code int
		says string
	}{
		{"no key", nil, []string{"true"}, 64, "no key"},
		{"empty key", nil, []string{"-k", "", "true"}, 64, "--key"},
		{"-- for a key", nil, []string{"-k", "--", "true"}, 64, "--key: its value is --, which"},
		{"-- for another key", nil, []string{"-k", "/x", "-k", "--", "true"}, 64, "--key: its value is --,"},
		{"-- for an id", nil, []string{"-k", "/x", "-i", "--", "true"}, 64, "--id: its value is --,"},
		{"an option for a key", nil, []string{"-vk", "--try", "--", "true"}, 64, "--key: its value is --try, an option"},
		{"an option for another key", nil, []string{"-k", "/x", "--key", "-s", "true"}, 64, "--key: its value is -s, an option"},
		{"an option with a value for an id", nil, []string{"-k/x", "-i", "--wait=5", "true"}, 64, "--id: its value is --wait=5, an option"},
		{"an option for a purpose", nil, []string{"--why", "-k", "/x"}, 64, "--why: its value is -k, an option"},
		{"a word like a short option for a password", nil, []string{"--user", "u", "--password", "-secret", "true"}, 64, "no key: which"},
		{"long key", nil, []string{"-k", strings.Repeat("k", 4097), "true"}, 64, "4097 bytes"},
		{"key of a tail", nil, []string{"-k", "/a~tail", "true"}, 64, "another lock's line"},
		{"key that is kept", nil, []string{"-k", "/a~runs", "true"}, 64, "~runs, which is kept"},
		{"another key that is kept", nil, []string{"-k", "/a~since", "true"}, 64, "~since, which is kept"},
		{"one key twice", nil, []string{"-k", "/x", "-k", "/y", "-k", "/x", "true"}, 64, `--key: "/x" is given twice`},
		{"another key that is empty", nil, []string{"-k", "/x", "-k", "", "true"}, 64, "--key: the lock's key is empty"},
		{"another key of a tail", nil, []string{"-k", "/x", "-k", "/a~tail", "true"}, 64, `"/a~tail" ends in ~tail`},
		{"another key that is long", nil, []string{"-k", "/x", "-k", strings.Repeat("k", 4097), "true"}, 64, "4097 bytes"},
		{"neither yes nor no to share", []string{"ETCD_LOCK_KEY=/x", "ETCD_LOCK_SHARED=maybe"}, []string{"true"}, 64, `ETCD_LOCK_SHARED: "maybe"`},
		{"the same by option", nil, []string{"-k", "/x", "--shared=maybe", "true"}, 64, "--shared"},
		{"to share slots", nil, []string{"-k", "/x", "-s", "--slots", "3", "true"}, 64, "--shared and --slots"},
		{"the same in another order", nil, []string{"-k", "/x", "-k", "/y", "--slots", "3", "-s", "true"}, 64, "--shared and --slots"},
		{"slots alone", nil, []string{"-k", "/x", "-x", "--slots", "3", "true"}, 64, "--exclusive and --slots"},
		{"the same by variables", []string{"ETCD_LOCK_KEY=/x", "ETCD_LOCK_SHARED=1", "ETCD_LOCK_SLOTS=3"}, []string{"true"}, 64, "ETCD_LOCK_SHARED and ETCD_LOCK_SLOTS"},
		{"no slots", nil, []string{"-k", "/x", "--slots", "0", "true"}, 64, `--slots: "0" is not a number from 1 to 1000`},
		{"too many slots", nil, []string{"-k", "/x", "--slots", "1001", "true"}, 64, `--slots: "1001"`},
		{"slots that are no number", nil, []string{"-k", "/x", "--slots", "x", "true"}, 64, `--slots: "x"`},
		{"slots in the variable", []string{"ETCD_LOCK_KEY=/x", "ETCD_LOCK_SLOTS=0"}, []string{"true"}, 64, `ETCD_LOCK_SLOTS: "0"`},
		{"long keys", nil, append(longKeys(17), "true"), 64, "--key: 17 keys that take"},
		{"long key in the variable", []string{"ETCD_LOCK_KEY=" + strings.Repeat("k", 4097)}, []string{"true"}, 64, "ETCD_LOCK_KEY: a key of 4097 bytes"},
		{"id that is no UTF-8", nil, []string{"-k", "/x", "-i", "\xff", "true"}, 64, "--id"},
		{"long id", nil, []string{"-k", "/x", "-i", strings.Repeat("i", 257), "true"}, 64, "--id"},
		{"long purpose", nil, []string{"-k", "/x", "--why", strings.Repeat("y", 257), "true"}, 64, "--why: 257 bytes"},
		{"purpose of two lines", []string{"ETCD_LOCK_WHY=a\nb"}, []string{"-k", "/x", "true"}, 64, "ETCD_LOCK_WHY"},
		{"TTL 0", nil, []string{"-k", "/x", "-t", "0", "true"}, 64, `--ttl: a TTL of "0"`},
		{"TTL -1", nil, []string{"-k", "/x", "-t", "-1", "true"}, 64, "--ttl"},
		{"TTL 1.5", nil, []string{"-k", "/x", "-t", "1.5", "true"}, 64, "--ttl"},
		{"TTL abc", nil, []string{"-k", "/x", "-t", "abc", "true"}, 64, `--ttl: "abc"`},
		{"TTL of 10 years", nil, []string{"-k", "/x", "-t", "315360000", "true"}, 64, "--ttl"},
		{"TTL in the variable", []string{"ETCD_LOCK_TTL=x"}, []string{"-k", "/x", "true"}, 64, "ETCD_LOCK_TTL"},
		{"refresh in the variable", []string{"ETCD_LOCK_REFRESH=x"}, []string{"-k", "/x", "true"}, 64, "ETCD_LOCK_REFRESH"},
		{"refresh leaves no room", nil, []string{"-k", "/x", "-t", "10", "-r", "10", "true"}, 64, "--refresh"},
		{"grace leaves no room", nil, []string{"-k", "/x", "-t", "10", "--grace", "10s", "true"}, 64, "--grace"},
		{"try and wait", nil, []string{"-k", "/x", "--try", "--wait", "5", "true"}, 64, "--try"},
		{"conflict code", nil, []string{"-k", "/x", "--conflict-exit-code", "256", "true"}, 64, "--conflict-exit-code"},
		{"orphans", nil, []string{"-k", "/x", "--orphans=eat", "true"}, 64, "--orphans"},
		{"doubt", nil, []string{"-k", "/x", "--on-doubt=pray", "true"}, 64, "--on-doubt"},
		{"signal", nil, []string{"-k", "/x", "--ignore-signal", "KILL", "true"}, 64, "--ignore-signal: \"KILL\""},
		{"options behind the command", nil, []string{"./deploy", "-k", "/x"}, 64, "no key"},
		{"a word for an option", nil, []string{"help"}, 64, "no key"},
		{"unknown option", nil, []string{"-k", "/x", "--colour", "true"}, 64, "--colour"},
		{"node without a module", nil, []string{"-k", "/x", "-n"}, 64, "--node: there is no command"},
		{"the same by variable", []string{"ETCD_CHILD_IS_NODE=1"}, []string{"-k", "/x"}, 64, "ETCD_CHILD_IS_NODE"},
		{"node with too rare pings", nil, []string{"-k", "/x", "-n", "-t", "20", "-r", "20", "worker.js"}, 64, "--refresh"},
		{"neither yes nor no", nil, []string{"-k", "/x", "--node=maybe", "true"}, 64, "--node"},
		{"no module", nil, []string{"-k", "/x", "-n", "node", "worker.js"}, 3, "no such module"},
		{"node-path without node", nil, []string{"-k", "/x", "--node-path", "node", "worker.js"}, 64, "--node-path"},
		{"empty node-path", nil, []string{"-k", "/x", "-n", "--node-path=", "worker.js"}, 64, "--node-path"},
		{"two kinds of signs", nil, []string{"-k", "/x", "-n", "--watchdog", "5", "worker.js"}, 64, "--node and --watchdog"},
		{"two others", nil, []string{"-k", "/x", "--pulse-cmd", "true", "--watchdog", "5", "true"}, 64, "--watchdog and --pulse-cmd"},
		{"short watchdog", nil, []string{"-k", "/x", "--watchdog", "0.9", "true"}, 64, "--watchdog: 900ms"},
		{"long watchdog", nil, []string{"-k", "/x", "--watchdog", "16", "true"}, 64, "--watchdog: 16s"},
		{"watchdog that is no time", nil, []string{"-k", "/x", "--watchdog", "often", "true"}, 64, "--watchdog"},
		{"watchdog without a command", nil, []string{"-k", "/x", "--watchdog", "5"}, 64, "--watchdog"},
		{"empty pulse command", nil, []string{"-k", "/x", "--pulse-cmd", " ", "true"}, 64, "--pulse-cmd"},
		{"pulse command without a guard", nil, []string{"-k", "/x", "--unguarded", "--pulse-cmd", "true", "true"}, 64, "--pulse-cmd"},
		{"bad URL", nil, []string{"-k", "/x", "-e", "http://[::1", "true"}, 64, "--etcd"},
		{"bad port", nil, []string{"-k", "/x", "-e", "host:99999", "true"}, 64, "--etcd"},
		{"credentials in the URL", nil, []string{"-k", "/x", "-e", "http://me:secret@host", "true"}, 64, "credentials"},
		{"bad URL in the variable", []string{"ETCDCTL_ENDPOINTS=ftp://x"}, []string{"-k", "/x", "true"}, 64, "ETCDCTL_ENDPOINTS"},
		{"unreadable certificate", nil, []string{"-k", "/x", "--cacert", filepath.Join(dir, "none"), "true"}, 64, "--cacert"},
		{"no certificate", nil, []string{"-k", "/x", "--cacert", notExecutable, "true"}, 64, "--cacert"},
		{"certificate without key", nil, []string{"-k", "/x", "--cert", notExecutable, "true"}, 64, "--cert"},
		{"user without password", nil, []string{"-k", "/x", "--user", "me", "true"}, 64, "--user"},
		{"command that is not there", nil, []string{"-k", "/x", "no-such-command"}, 3, "no-such-command"},
		{"command that is a directory", nil, []string{"-k", "/x", dir}, 3, dir},
		{"command that is not executable", nil, []string{"-k", "/x", notExecutable}, 3, "plain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env, args := tt.env, tt.args
			if !strings.Contains(strings.Join(append(env, args...), " "), "-e ") && len(env) == 0 {
				args = append([]string{"-e", s.Endpoint()}, args...)
			}
			p := programs.Start(t, env, "etcdlocker", args...)
			if code := p.Code(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			lines := strings.Split(strings.TrimSpace(p.Stderr.String()), "\n")
			if !strings.HasPrefix(lines[0], "etcdlocker: error: ") || !strings.Contains(lines[0], tt.says) {
				t.Errorf("it says %q, want something of %q", lines[0], tt.says)
			}
			if len(lines) != 2 || !strings.HasPrefix(lines[1], "etcdlocker: hint: ") {
				t.Errorf("no way out in %q", lines)
			}
			if strings.Contains(p.Stderr.String(), "secret") {
				t.Error("it shows a password")
			}
		})
	}
	s.Empty(t)
}

// longKeys returns options for so many keys, as long as they can be.
func longKeys(n int) (options []string) {
	for i := range n {
		options = append(options, "-k", fmt.Sprintf("%04096d", i))
	}
	return options
}

func TestHelpAndVersion(t *testing.T) {
	p := programs.Start(t, nil, "etcdlocker", "--help")
	if p.Code() != 0 || !strings.Contains(p.Stdout.String(), "Usage: etcdlocker") || p.Stderr.String() != "" {
		t.Errorf("--help: %d, %q", p.Code(), p.Stderr)
	}
	for _, program := range []string{"etcdlocker", "etcdlockctl"} {
		p := programs.Start(t, nil, program, "--version")
		if p.Code() != 0 || !strings.HasPrefix(p.Stdout.String(), program) {
			t.Errorf("--version: %d, %q", p.Code(), p.Stdout)
		}
	}
}

// TestNoGrace: with a grace of 0 renewals may be due as late as the TTL allows.
func TestNoGrace(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for _, refresh := range []string{"58", "59.59"} {
		p := programs.Locker(t, s.Endpoint(), "-k", "/no-grace", "-t", "60", "-r", refresh, "--grace", "0", "true")
		if code := p.Code(); code != 0 {
			t.Errorf("refresh interval %s: exit code %d, %q", refresh, code, p.Stderr)
		}
	}
}
