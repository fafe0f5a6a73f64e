package kernel

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Files of the kernel's, in /proc and among control groups, are read without telling Go's
// scheduler: it would wake up other threads whenever a file takes a moment, and thousands may be
// read.

// ReadFile returns what a file of the kernel's says.
func ReadFile(name string) (string, error) {
	fd, err := open(name)
	if err != nil {
		return "", err
	}
	defer closeFile(fd)
	var first [1024]byte
	content := first[:0]
	for {
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
		n, err := transfer(syscall.SYS_READ, fd, content[len(content):cap(content)])
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return string(content), nil
		}
		content = content[:len(content)+n]
	}
}

// here is AT_FDCWD.
const here = -100

// Names returns the names in a directory of the kernel's.
func Names(dir string) (names []string, err error) {
	fd, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer closeFile(fd)
	buf := make([]byte, 4096)
	for {
		n, err := transfer(syscall.SYS_GETDENTS64, fd, buf)
		if err != nil {
			return nil, &os.PathError{Op: "readdir", Path: dir, Err: err}
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = syscall.ParseDirent(buf[:n], -1, names)
	}
}

// OwnProc reports whether the numbers in /proc are those of this process's pid namespace.
func OwnProc() bool {
	path, err := syscall.BytePtrFromString("/proc/self")
	if err != nil {
		return false
	}
	at, link := here, [20]byte{}
	n, _, e := syscall.RawSyscall6(syscall.SYS_READLINKAT, uintptr(at), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&link)), uintptr(len(link)), 0, 0)
	return e == 0 && string(link[:n]) == strconv.Itoa(os.Getpid())
}

// Close closes a descriptor.
func Close(fd int) { closeFile(uintptr(fd)) }

// open opens a file for reading.
func open(name string) (fd uintptr, err error) {
	path, err := syscall.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	at := here
	err = Uninterrupted(func() error {
		var e syscall.Errno
		fd, _, e = syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(path)), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
		return errnoOf(e)
	})
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

func closeFile(fd uintptr) { syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0) }

// transfer makes a call that fills a buffer.
func transfer(call, fd uintptr, buf []byte) (n int, err error) {
	err = Uninterrupted(func() error {
		r, _, e := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
		n = int(r)
		return errnoOf(e)
	})
	return n, err
}
