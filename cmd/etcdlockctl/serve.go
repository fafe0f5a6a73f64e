package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/embedded"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/serverdir"
)

// serve is what the command's flags say.
type serve struct {
	dir        string
	idleExit   time.Duration
	background bool
	stop       bool
	verbose    bool
	ready      int // the descriptor on which a server in the background reports to its starter
	lock       int // the one of the lock on the directory that the starter has taken; 0: none
}

func newServe() *cobra.Command {
	s := &serve{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run an etcd for the locks of this machine and user",
		Long: `Runs one etcd for the locks of this machine and user, on a unix socket that
nobody else can reach. It is what etcdlocker --embedded uses, and starts when it
does not run. Its locks are not those of another machine or user.

Only one server runs in a directory. DIR/endpoint names its socket, for
etcdlocker -e and etcdctl --endpoints.`,
		Example: `  etcdlockctl serve
  etcdlockctl serve --background --idle-exit 10m
  etcdlockctl serve --stop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("serve takes no arguments, and got %q (%w)", args[0], errUsage)
			}
			if cmd.Flags().Changed("dir") && s.dir == "" {
				return advise(fmt.Errorf("--dir names no directory (%w)", errUsage), "is a variable before it empty? without --dir it is the usual one")
			}
			return s.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.dir, "dir", "", "its directory (default: etcdlock/etcd in XDG_STATE_HOME or ~/.local/state)")
	durationVar(f, &s.idleExit, "idle-exit", 0, "leave after so long without clients and leases (default: never)")
	f.BoolVar(&s.background, "background", false, "return as soon as it answers, and let it run")
	f.BoolVar(&s.stop, "stop", false, "end the server of the directory")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "debug messages on stderr: all that etcd says")
	f.IntVar(&s.ready, "ready-fd", 0, "")
	f.IntVar(&s.lock, "lock-fd", 0, "")
	if err := errors.Join(f.MarkHidden("ready-fd"), f.MarkHidden("lock-fd")); err != nil {
		panic(err)
	}
	cmd.MarkFlagsMutuallyExclusive("background", "stop")
	return cmd
}

func (s *serve) run(ctx context.Context) (err error) {
	if s.dir == "" {
		if s.dir, err = serverdir.Default(); err != nil {
			return err
		}
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return err
	}
	switch {
	case s.stop:
		return serverdir.Stop(ctx, s.dir)
	case s.background:
		return s.detach()
	}
	return s.foreground(ctx)
}

// foreground runs the server until a signal ends it, or nobody needs it any more.
func (s *serve) foreground(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // whoever reads what it says may go
	if s.ready != 0 {
		signal.Ignore(syscall.SIGHUP)
		nameSelf()
	}
	syscall.Umask(0o077)
	lock, err := s.take()
	if err != nil {
		return err
	}
	server, err := embedded.Start(ctx, s.dir, lock, s.verbose)
	if err != nil {
		return err
	}
	if err := s.announce(server.Endpoint); err != nil {
		return errors.Join(err, server.Close())
	}
	return errors.Join(server.Wait(ctx, s.idleExit), server.Close())
}

// take locks the directory, unless whoever has started this process has done so.
func (s *serve) take() (*os.File, error) {
	if s.lock != 0 {
		return os.NewFile(uintptr(s.lock), "lock"), nil
	}
	lock, err := serverdir.Take(s.dir)
	if errors.Is(err, serverdir.ErrBusy) {
		err = advise(err, fmt.Sprintf("use that server, end it with %s serve --stop --dir %s, or name another directory with --dir", program, plain.Shell(s.dir)))
	}
	return lock, err
}

// announce tells whoever waits for it that the server answers.
func (s *serve) announce(endpoint string) error {
	if s.ready == 0 {
		fmt.Printf("%s answers; use it with: etcdlocker --embedded=%s\n", endpoint, plain.Word(s.dir))
		return nil
	}
	f := os.NewFile(uintptr(s.ready), "ready")
	defer f.Close()
	// Nobody will read our stderr any more, and to write to it would be the end.
	log, err := os.OpenFile(serverdir.LogPath(s.dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := unix.Dup2(int(log.Fd()), 2); err != nil {
		return err
	}
	_, err = io.WriteString(f, readyWord+"\n")
	return err
}

const readyWord = "ready"

// closeInherited closes what this process was given beyond its standard files and the lock, and the
// server would keep open for as long as it lives: somebody may wait for the end of a pipe, or for
// the lock on a file. What Go has opened is closed in the server anyway.
func (s *serve) closeInherited() {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, f := range files {
			fd, err := strconv.Atoi(f.Name())
			if err != nil || fd <= 2 || fd == s.lock {
				continue
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
				unix.Close(fd)
			}
		}
		return
	}
}

// detach starts the server as a process that is nobody's child: we leave once it answers, and it
// falls to init. So whoever called us may later become the parent of orphans without inheriting it.
func (s *serve) detach() error {
	s.closeInherited()
	standApart()
	lock, err := s.take()
	if err != nil {
		return err
	}
	defer lock.Close()
	self := "/proc/self/exe" // works even if the file has been replaced
	if runtime.GOOS != "linux" {
		if self, err = os.Executable(); err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self, "serve", "--dir", s.dir, "--idle-exit", s.idleExit.String(), "--ready-fd", "3", "--lock-fd", "4")
	if s.verbose {
		cmd.Args = append(cmd.Args, "--verbose")
	}
	cmd.Args[0] = program
	cmd.Env = serverdir.Environment()
	cmd.Dir = "/"
	cmd.Stderr = w // until it answers; then it is turned to the log
	cmd.ExtraFiles = []*os.File{w, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	w.Close()
	return s.await(cmd, r)
}

// await returns when the server answers, or has ended and said why.
func (s *serve) await(cmd *exec.Cmd, r io.Reader) error {
	var said []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if lines.Text() == readyWord {
			return cmd.Process.Release()
		}
		line, isError := strings.CutPrefix(lines.Text(), "etcdlockctl: error: ")
		if s.verbose && !isError {
			fmt.Fprintln(os.Stderr, line)
			continue
		}
		said = append(said, line)
	}
	return fmt.Errorf("the server did not start: %s (%w)", strings.Join(said, "; "), cmd.Wait())
}
