//go:build linux

// Command broken is a locker with a defect, for the fault suite to notice.
//
//	broken DEFECT ENDPOINTS KEY ID TTL COMMAND [ARGUMENT...]
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdlock/etcdlock"
)

func main() {
	code, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "broken: error:", err)
	}
	os.Exit(code)
}

const lost = 2

func run(defect string, args []string) (code int, err error) {
	client, err := dial(defect, strings.Split(args[0], ","))
	if err != nil {
		return 1, err
	}
	defer client.Close()
	seconds, err := strconv.Atoi(args[3])
	if err != nil {
		return 1, err
	}
	key, id, ttl := args[1], args[2], time.Duration(seconds)*time.Second
	life := ttl
	if defect == "leaves its lease" {
		life = time.Minute // it is there when somebody looks, also on a busy machine
	}
	lock, err := etcdlock.New(client, key, id, life)
	if err != nil {
		return 1, err
	}
	lock.Session().RefreshInterval = time.Second
	lock.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx := context.Background()
	held, err := lock.Lock(ctx)
	if err == nil && defect == "lets others pass" && id == "first" {
		if err = lock.Close(ctx); err == nil {
			held, err = lock.Lock(ctx)
		}
	}
	if err != nil {
		return 1, err
	}
	if defect == "starts late" && id != "holder" {
		time.Sleep(ttl + 8*time.Second)
	}
	w := &work{defect: defect, lock: lock, held: held, ttl: ttl, ended: make(chan struct{})}
	if err := w.start(args[4:]); err != nil {
		return 3, err
	}
	return w.hold()
}

// dial returns a client, of a user if the environment names one.
func dial(defect string, endpoints []string) (*clientv3.Client, error) {
	config := clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()}
	config.Username, config.Password, _ = strings.Cut(os.Getenv("ETCDCTL_USER"), ":")
	client, err := clientv3.New(config)
	if err != nil || defect != "logs in once" {
		return client, err
	}
	defer client.Close()
	for {
		answer, err := client.Authenticate(context.Background(), config.Username, config.Password)
		if err != nil {
			return nil, err
		}
		once := config
		once.Username, once.Password, once.Token = "", "", answer.Token
		known, err := isKnown(once)
		if err != nil {
			return nil, err
		}
		if known {
			return clientv3.New(once)
		}
	}
}

// isKnown reports whether each member accepts a token. One that starts may not have heard of it.
func isKnown(config clientv3.Config) (bool, error) {
	for _, member := range config.Endpoints {
		config.Endpoints = []string{member}
		client, err := clientv3.New(config)
		if err != nil {
			return false, err
		}
		_, err = client.Get(context.Background(), "/")
		client.Close()
		if errors.Is(err, rpctypes.ErrInvalidAuthToken) {
			return false, nil
		}
	}
	return true, nil
}

// work is a command under a lock.
type work struct {
	defect string
	lock   *etcdlock.Lock
	held   *etcdlock.Held
	ttl    time.Duration
	cmd    *exec.Cmd
	ended  chan struct{}
}

func (w *work) start(words []string) error {
	token := w.held.Token()
	if w.defect == "hands out an old token" {
		token = 1
	}
	w.cmd = exec.Command(words[0], words[1:]...)
	w.cmd.Env = append(os.Environ(), fmt.Sprintf("ETCD_LOCK_REV=%d", token))
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	go func() {
		w.cmd.Wait()
		close(w.ended)
	}()
	switch w.defect {
	case "leaves a process":
		return exec.Command("sleep", "60").Start()
	case "leaves a control group":
		return leaveGroup()
	}
	return nil
}

// leaveGroup makes a control group below this process's own, and leaves it there.
func leaveGroup() error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	_, name, _ := strings.Cut(string(own), "0::")
	name, _, _ = strings.Cut(name, "\n")
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[2] == "cgroup2" {
			return os.Mkdir(filepath.Join(fields[1], name, "etcdlocker-left"), 0o755)
		}
	}
	return errors.New("no control groups")
}

// hold waits for the end, of the command or of the lock.
func (w *work) hold() (int, error) {
	held := w.held.Context(context.Background())
	over := held.Done()
	var early <-chan time.Time
	switch w.defect {
	case "ignores loss":
		over = nil
	case "waits too long":
		over = w.held.Expired()
	case "has no patience":
		short := make(chan struct{})
		go func() {
			// A renewal each second, and one has failed.
			for w.held.Remaining() > w.ttl-2500*time.Millisecond {
				time.Sleep(10 * time.Millisecond)
			}
			close(short)
		}()
		over = short
	case "gives up":
		early = time.After(w.ttl * 4 / 5)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	select {
	case <-w.ended:
		if w.defect == "leaves its lease" {
			return 0, w.lock.Unlock(ctx)
		}
		return 0, w.lock.Close(ctx)
	case <-early:
	case <-over:
	}
	cause := context.Cause(held)
	switch w.defect {
	case "releases before death":
		w.lock.Close(ctx)
		time.Sleep(time.Second) // the next one starts meanwhile, also on a busy machine
	case "waits too long":
		time.Sleep(time.Second)
	}
	w.cmd.Process.Kill()
	<-w.ended
	err := errors.Join(cause, w.lock.Close(ctx))
	if w.defect == "swallows the exit code" {
		return 0, err
	}
	return lost, err
}
