package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// An etcd is where a measurement takes place.
type etcd struct {
	endpoints []string
	account   account // nobody's: it has no users
}

// An account is a user with a password.
type account struct{ user, password string }

func (e etcd) client(options ...grpc.DialOption) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: e.endpoints, Username: e.account.user, Password: e.account.password,
		Logger: zap.NewNop(), DialOptions: options})
}

// A server is an etcd of one member, in a process of its own: etcdlockctl serve.
type server struct {
	etcd

	cmd  *exec.Cmd
	keep *clientv3.Client // keeps it from leaving
}

// startServer starts a server with the programs in programs and its data below it. Should nobody
// end it, it leaves by itself once it has no clients.
func startServer(ctx context.Context, programs string) (*server, error) {
	dir, err := os.MkdirTemp(programs, "data-")
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(filepath.Join(programs, "etcdlockctl"), "serve", "--dir", dir, "--idle-exit", "20s")}
	// Nobody reads its log: it speaks of clients that have gone in the middle of a request.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; we end it
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { s.cmd.Process.Kill() })()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	endpoint, _, ok := strings.Cut(line, " ")
	if err != nil || !ok {
		s.close()
		return nil, fmt.Errorf("the server said %q: %w", line, errors.Join(err, context.Cause(ctx)))
	}
	s.endpoints = []string{endpoint}
	if s.keep, err = s.client(); err == nil {
		_, err = s.keep.Get(ctx, "connects")
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// askForPasswords has the server know root alone, who may do everything, and check passwords as it
// usually does. All that is measured there is done by that user: what a user may do costs nothing.
func (s *server) askForPasswords(ctx context.Context) error {
	root := account{"root", "password"}
	_, err := s.keep.UserAdd(ctx, root.user, root.password)
	if err == nil {
		_, err = s.keep.RoleAdd(ctx, "root")
	}
	if err == nil {
		_, err = s.keep.UserGrantRole(ctx, root.user, "root")
	}
	if err == nil {
		_, err = s.keep.AuthEnable(ctx)
	}
	s.account = root
	return err
}

// close kills the server: nobody wants its data any more.
func (s *server) close() {
	if s.keep != nil {
		s.keep.Close()
	}
	s.cmd.Process.Kill()
	s.cmd.Wait() // ends by the signal
}

// clockTick is the unit of time in /proc/PID/stat on every Linux that Go runs on.
const clockTick = time.Second / 100

// cpu returns what the server has used of the processors.
func (s *server) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, is the second field and may have spaces in it.
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot read the processor time in %q", content)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// settle waits until the server has little to do: what came before is not to be measured with what
// comes next.
func (s *server) settle(ctx context.Context) error {
	const look, little = 300 * time.Millisecond, 15 * time.Millisecond
	before, err := s.cpu()
	for err == nil {
		if !sleep(ctx, look) {
			return context.Cause(ctx)
		}
		var now time.Duration
		if now, err = s.cpu(); now-before <= little {
			break
		}
		before = now
	}
	return err
}
