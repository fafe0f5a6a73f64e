//go:build linux

package scenarios

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A screen is a program that has the terminal to itself. It talks to the terminal and not to its
// standard files, as it must in a pipeline.
type screen struct {
	tty *os.File
	was *term.State // before it was set

	keys      chan byte
	resized   chan os.Signal
	continued chan os.Signal
}

// screens are the parts of such programs that the test binary can play.
var screens = map[string]func(*screen){"editor": edit, "pager": page, "prompt": prompt, "counter": count, "leader": lead}

// playScreen plays one, if there is one of that name.
func playScreen(role string) {
	if screens[role] == nil {
		return
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s := &screen{tty: tty, keys: make(chan byte), resized: make(chan os.Signal, 64), continued: make(chan os.Signal, 64)}
	signal.Notify(s.resized, unix.SIGWINCH)
	signal.Notify(s.continued, unix.SIGCONT)
	screens[role](s)
	os.Exit(0)
}

func (s *screen) says(format string, args ...any) { fmt.Fprintf(s.tty, format+"\r\n", args...) }

// listen reads keys. A program that does not listen does not take them away from others.
func (s *screen) listen() {
	for b := make([]byte, 1); ; {
		if _, err := s.tty.Read(b); err != nil {
			s.says("error: %v", err)
			os.Exit(1)
		}
		s.keys <- b[0]
	}
}

// set sets the terminal: what is typed comes key by key, and is not shown. Without signals, Ctrl-C
// and Ctrl-Z are keys as well.
func (s *screen) set(signals bool) {
	fd := int(s.tty.Fd())
	var err error
	if s.was, err = term.MakeRaw(fd); err == nil && signals {
		var t *unix.Termios
		if t, err = unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			t.Lflag |= unix.ISIG
			err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
		}
	}
	if err != nil {
		s.says("error: %v", err)
	}
}

func (s *screen) unset() { term.Restore(int(s.tty.Fd()), s.was) }

// drain takes what is fed to a program that has no use for it: whoever feeds it may be slow, and
// would have nobody to write to when it has ended.
func drain() {
	if !term.IsTerminal(0) {
		io.Copy(io.Discard, os.Stdin)
	}
}

// edit is an editor: it takes all keys, and on Ctrl-Z it leaves the terminal as it was and stops
// its process group.
func edit(s *screen) {
	drain()
	s.set(false)
	go s.listen()
	s.says("editor: opens")
	for {
		select {
		case key := <-s.keys:
			switch key {
			case ctrlZ[0]:
				s.unset()
				s.says("editor: leaves")
				syscall.Kill(0, syscall.SIGTSTP)
				<-s.continued
				s.set(false)
				s.says("editor: is back")
			case 'q':
				s.unset()
				s.says("editor: closes")
				fmt.Println("edited")
				return
			default:
				s.says("editor: key %q", key)
			}
		case <-s.resized:
			columns, rows, _ := term.GetSize(int(s.tty.Fd()))
			s.says("editor: %d rows of %d", rows, columns)
		}
	}
}

// page is a pager: what it shows comes from a pipe. Ctrl-Z is a signal, and it leaves the terminal
// as it was before it stops.
func page(s *screen) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTSTP)
	lines := bufio.NewScanner(os.Stdin)
	s.set(true)
	go s.listen()
	s.says("pager: opens")
	for {
		select {
		case key := <-s.keys:
			if key == 'q' {
				s.unset()
				s.says("pager: closes")
				return
			}
			lines.Scan()
			s.says("pager: line %q", lines.Text())
		case <-stop:
			s.unset()
			s.says("pager: leaves")
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			<-s.continued
			s.set(true)
			s.says("pager: is back")
		}
	}
}

// prompt asks for a password.
func prompt(s *screen) {
	drain()
	fmt.Fprint(s.tty, "prompt: ")
	word, err := term.ReadPassword(int(s.tty.Fd()))
	s.says("")
	fmt.Printf("prompt: %d long, %v\n", len(word), err)
}

// lead counts in a process group of its own, as timeout(1) makes one.
func lead(s *screen) {
	if err := syscall.Setpgid(0, 0); err != nil {
		s.says("error: %v", err)
	}
	count(s)
}

// count tells of each signal that comes, until there is a SIGIO: it has the highest number of those
// that etcdlocker passes on, so it comes after whatever else etcdlocker has been sent. It says who
// is the parent of its guard.
func count(s *screen) {
	c := make(chan os.Signal, 64)
	signal.Notify(c, unix.SIGINT, unix.SIGQUIT, unix.SIGWINCH, unix.SIGIO)
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", os.Getppid()))
	above := ""
	if fields := strings.Fields(string(stat)); len(fields) > 3 {
		above = fields[3]
	}
	s.says("counter: below %s.", above)
	for sig := range c {
		if sig == unix.SIGIO {
			s.says("counter: ends")
			return
		}
		s.says("counter: %v", unix.SignalName(sig.(syscall.Signal)))
	}
}
