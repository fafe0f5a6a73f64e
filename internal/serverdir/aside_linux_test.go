package serverdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// starterOf names the directory for which the test binary plays an etcdlocker with a command.
const starterOf = "ETCDLOCK_TEST_STARTER_OF"

func TestMain(m *testing.M) {
	if dir := os.Getenv(starterOf); dir != "" {
		if err := playStarter(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playStarter starts a server, as a process to which orphans fall. The server is not among them,
// and nothing of the lock on the directory stays here.
func playStarter(dir string) error {
	lock, err := Take(dir)
	if err == nil {
		err = kernel.AdoptOrphans(true)
	}
	if err == nil {
		err = start(context.Background(), dir, lock, 0)
	}
	if err != nil {
		return err
	}
	server, err := readNumber(dir, "server")
	if err == nil && kernel.IsChild(server) {
		err = errors.New("the server is a child of its starter")
	}
	if err != nil {
		return err
	}
	again, err := Take(dir)
	if err != nil {
		return err
	}
	return again.Close()
}

func readNumber(dir, name string) (int, error) {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(content)))
}

// TestAside: what a process to which orphans fall starts for others is a child of that one's
// parent.
func TestAside(t *testing.T) {
	programs, dir := t.TempDir(), filepath.Join(t.TempDir(), "etcd")
	script := fmt.Sprintf("#!/bin/sh\ncd '%s'\necho $$ > control\nsleep 1000 > /dev/null 2>&1 3>&- &\necho $! > server\n", dir)
	if err := os.WriteFile(filepath.Join(programs, "etcdlockctl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	starter := exec.Command(os.Args[0])
	starter.Env = append(os.Environ(), starterOf+"="+dir, "PATH="+programs+":"+os.Getenv("PATH"))
	if out, err := starter.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if server, err := readNumber(dir, "server"); err != nil || syscall.Kill(server, syscall.SIGKILL) != nil {
		t.Errorf("there is no server: %d, %v", server, err)
	}
	control, err := readNumber(dir, "control")
	if err == nil {
		_, err = syscall.Wait4(control, nil, 0, nil)
	}
	if err != nil {
		t.Errorf("what has started it is not a child of this process: %v", err)
	}
}
