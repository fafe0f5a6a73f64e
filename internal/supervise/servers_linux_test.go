package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOnlyServers: what is called like an embedded etcd is told from others, and is not stopped
// with them.
func TestOnlyServers(t *testing.T) {
	if OnlyServers(nil) {
		t.Error("nobody is taken for one")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "serve"), []byte("read line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) Process {
		cmd := exec.Command("sh")
		cmd.Args, cmd.Dir = args, dir
		stdin, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGCONT)
			stdin.Close()
			cmd.Wait()
		})
		p, ok := readProcess(cmd.Process.Pid)
		if !ok {
			t.Fatal("it is not there")
		}
		return p
	}
	server, other := run("etcdlockctl", "serve"), run("sh", "serve")
	for _, tt := range []struct {
		all  []Process
		want bool
	}{
		{[]Process{server}, true},
		{[]Process{server, {PID: other.PID, Zombie: true}}, true},
		{[]Process{{PID: server.PID, Zombie: true}}, false},
		{[]Process{server, other}, false},
		{[]Process{other}, false},
	} {
		if got := OnlyServers(tt.all); got != tt.want {
			t.Errorf("%v: %v", tt.all, got)
		}
	}
	frozen := Freeze(func() []Process { return []Process{server, other} })
	if len(frozen) != 1 || frozen[0].PID != other.PID {
		t.Errorf("stopped: %v", frozen)
	}
}
