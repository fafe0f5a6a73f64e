package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked for without PATH, as by execvp(3) and shells.
var defaultPath = []string{"/bin", "/usr/bin"}

// lookPath finds a program in PATH, or in the default path if there is no PATH.
func lookPath(name string) (path string, err error) {
	path, err = exec.LookPath(name)
	if _, set := os.LookupEnv("PATH"); set || err == nil || filepath.Base(name) != name {
		return path, err
	}
	for _, dir := range defaultPath {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return found, nil
		}
	}
	return path, err
}

// checkInterpreter returns an error if a program is a script whose interpreter does not exist. The
// kernel says no more than that there is no such file.
func checkInterpreter(path string) error {
	script, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil // it may be executed all the same
	}
	defer script.Close()
	begin := make([]byte, 256) // as much as the kernel reads
	n, _ := io.ReadFull(script, begin)
	interpreter := interpreterOf(string(begin[:n]))
	if interpreter == "" {
		return nil
	}
	if _, err := os.Stat(interpreter); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	hint := "install it, or correct the first line of the script"
	if strings.HasSuffix(interpreter, "\r") {
		hint = `the lines of the script end with CR LF, as on Windows: sed -i 's/\r$//' FILE converts it`
	}
	return usagef(hint+"; nothing was locked", "cannot run %q: its first line names the interpreter %q, which does not exist", path, interpreter)
}

// interpreterOf returns the program that the first line of a script names; empty: it is not a
// script.
func interpreterOf(script string) string {
	line, is := strings.CutPrefix(script, "#!")
	line, _, _ = strings.Cut(line, "\n")
	words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if !is || len(words) == 0 {
		return ""
	}
	return words[0]
}

// hintOfStart returns what to do about the kernel's refusal to execute the command, or its guard.
func hintOfStart(err error) string {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return "a script needs a first line such as #!/bin/sh; "
	case errors.Is(err, unix.ENOENT):
		return "the file exists, but not what loads it: its dynamic loader (ldd shows it), or the interpreter of its interpreter; "
	case errors.Is(err, unix.EACCES):
		return "check the permissions of the file and of its interpreter, and whether their file systems are mounted noexec; "
	case errors.Is(err, unix.E2BIG):
		return "the kernel limits arguments and environment together to a quarter of ulimit -s, and etcdlocker adds to them: use fewer arguments (xargs -n), a file, or a higher limit; "
	}
	return ""
}
