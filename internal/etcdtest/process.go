package etcdtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// A member is the test binary executed again under this name, with its config in this variable.
const (
	memberName = "etcdtest-member"
	memberEnv  = "ETCDTEST_MEMBER"
)

// runMember is the whole life of a member's process. It ends by a signal, or with an error.
func runMember(spec string) error {
	var c config
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(c.embed())
	if err != nil {
		return err
	}
	select {
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("the server stopped")
	}
	return err
}

// Process is an etcd member in a process of its own. On Linux it dies with the test binary, however
// that ends. Its methods are for one goroutine at a time.
type Process struct {
	Access
	t      testing.TB
	config config
	ports  []*port
	log    string

	cmd     *exec.Cmd
	exited  chan struct{} // closed when it was waited for
	stopped bool
}

// StartProcess starts a single member, waits until it answers, and kills it when the test is over.
// It needs [Main] in TestMain.
func StartProcess(t testing.TB, opts ...Option) *Process {
	t.Helper()
	c := newConfig(opts)
	c.Dir = t.TempDir()
	p, err := newProcess(t, c, false)
	if err == nil {
		p.Access, err = newAccess(&p.config)
	}
	if err != nil {
		t.Fatalf("cannot start etcd: %v", err)
	}
	p.start()
	p.awaitReady()
	return p
}

// newProcess prepares a member; start starts it.
func newProcess(t testing.TB, c config, peers bool) (*Process, error) {
	shared.Lock()
	hooked := shared.hooked
	shared.Unlock()
	if !hooked {
		return nil, errors.New("etcdtest.Main is missing in TestMain")
	}
	p := &Process{t: t, config: c, log: filepath.Join(c.Dir, "log")}
	t.Cleanup(p.cleanup)
	var err error
	if err := p.config.makeFiles(c.Dir); err != nil {
		return nil, err
	}
	if p.config.ClientAddr, err = p.reserve(); err != nil {
		return nil, err
	}
	if peers {
		p.config.PeerAddr, err = p.reserve()
	}
	return p, err
}

func (p *Process) reserve() (string, error) {
	port, err := reservePort()
	if err != nil {
		return "", err
	}
	p.ports = append(p.ports, port)
	return port.addr.String(), nil
}

func (p *Process) cleanup() {
	p.Kill()
	for _, port := range p.ports {
		port.release()
	}
	if log, _ := os.ReadFile(p.log); p.t.Failed() && len(log) > 0 {
		p.t.Logf("log of %s:\n%s", p.config.Name, log)
	}
}

// Kill kills the process with SIGKILL and waits for its end. Its port refuses connections from then
// on.
func (p *Process) Kill() {
	if !p.running() {
		return
	}
	p.cmd.Process.Kill()
	<-p.exited
	p.cmd = nil
}

// Stop stops the process with SIGSTOP: its connections stay open, new ones are accepted by the
// kernel, and it answers nothing until [Process.Cont].
func (p *Process) Stop() {
	p.t.Helper()
	if !p.running() || p.stopped {
		p.t.Fatal("etcdtest: stop of a member that does not run")
	}
	err := p.cmd.Process.Signal(syscall.SIGSTOP)
	if err == nil {
		err = awaitStopped(p.cmd.Process.Pid)
	}
	if err != nil {
		p.t.Fatalf("cannot stop a member: %v", err)
	}
	p.stopped = true
}

// Cont lets a stopped process go on.
func (p *Process) Cont() {
	p.t.Helper()
	if !p.running() {
		p.t.Fatal("etcdtest: cont of a member that does not run")
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatalf("cannot continue a member: %v", err)
	}
	p.stopped = false
}

// Restart starts the process again on its data and port, killing it before if it runs, and waits
// until it answers. A member of a cluster answers only while there is a majority.
func (p *Process) Restart() {
	p.t.Helper()
	p.Kill()
	p.start()
	p.awaitReady()
}

// NewAuthority adds a second authority to the file of the first one, and restarts the process with
// a certificate of the second.
func (p *Process) NewAuthority() {
	p.t.Helper()
	p.Kill()
	err := p.certs.renew()
	if err == nil {
		p.tls, err = p.certs.clientTLS()
	}
	if err != nil {
		p.t.Fatalf("no new authority: %v", err)
	}
	p.Restart()
}

// Wipe restarts the process with an empty data directory on the same port, as an etcd of the same
// name that forgot everything, including its users.
func (p *Process) Wipe() {
	p.t.Helper()
	if p.config.PeerAddr != "" {
		p.t.Fatal("etcdtest: a member of a cluster cannot come back empty")
	}
	p.Kill()
	if err := os.RemoveAll(p.config.dataDir()); err != nil {
		p.t.Fatal(err)
	}
	p.auth.set("")
	p.start()
	p.awaitReady()
}

// Backup restarts the process, and copies its data before it starts again. Restore kills it, and
// starts it with the data that was copied.
func (p *Process) Backup() (restore func()) {
	p.t.Helper()
	p.Kill()
	backup, data := filepath.Join(p.t.TempDir(), "backup"), p.config.dataDir()
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		p.t.Fatalf("cannot copy the data of a member: %v", err)
	}
	p.Restart()
	return func() {
		p.t.Helper()
		p.Kill()
		err := os.RemoveAll(data)
		if err == nil {
			err = os.CopyFS(data, os.DirFS(backup))
		}
		if err != nil {
			p.t.Fatalf("cannot restore the data of a member: %v", err)
		}
		p.Restart()
	}
}

// PID returns the id of the process, which must run.
func (p *Process) PID() int { return p.cmd.Process.Pid }

func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *Process) start() {
	p.t.Helper()
	if err := p.launch(); err != nil {
		p.t.Fatalf("cannot start a member: %v", err)
	}
}

func (p *Process) launch() error {
	spec, err := json.Marshal(&p.config)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := selfCommand()
	if err != nil {
		return err
	}
	cmd.Args = []string{memberName}
	cmd.Env = append(os.Environ(), memberEnv+"="+string(spec))
	cmd.Stdout, cmd.Stderr = log, log
	if err := startTied(cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.stopped = cmd, exited, false
	go func() {
		cmd.Wait()
		close(exited)
	}()
	return nil
}

// awaitReady waits for a linearizable read through this member.
func (p *Process) awaitReady() {
	p.t.Helper()
	p.await("ready", p.read)
}

// await calls done until it returns nil, and fails the test if that never happens or the process
// ends before.
func (p *Process) await(what string, done func(context.Context) error) {
	p.t.Helper()
	ctx, cancel := untilDeadline(p.t)
	defer cancel()
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	go func(cmd *exec.Cmd, exited <-chan struct{}) {
		select {
		case <-exited:
			gone(fmt.Errorf("it ended: %v", cmd.ProcessState))
		case <-ctx.Done():
		}
	}(p.cmd, p.exited)
	if err := poll(ctx, done); err != nil {
		log, _ := os.ReadFile(p.log)
		p.t.Fatalf("%s is not %s: %v\n%s", p.config.Name, what, errors.Join(context.Cause(ctx), err), log)
	}
}

func (p *Process) read(ctx context.Context) error {
	// A request sent too early can be lost in an election.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	config := p.Config()
	config.Context = ctx
	client, err := newClient(config)
	if err != nil {
		return err
	}
	defer client.Close()
	// etcd repeats a read that found no leader only every 500 ms.
	err = poll(ctx, func(ctx context.Context) error {
		status, err := client.Status(ctx, p.Endpoint())
		if err == nil && status.Leader == 0 {
			err = errors.New("no leader")
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = client.Get(ctx, "etcdtest")
	return err
}
