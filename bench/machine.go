package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/version"
)

// conditions says when a run was made, with what and for how long.
func conditions(began time.Time, dir string, rounds int) string {
	return fmt.Sprintf("%s: %s, %d processors, Linux %s, %s, etcd %s with its data on %s; %d rounds in %d min.\n",
		began.UTC().Format(time.DateOnly), processor(), runtime.NumCPU(), kernel(), runtime.Version(), version.Version, fileSystem(dir),
		rounds, int(time.Since(began).Round(time.Minute).Minutes()))
}

// processor is its model's name.
func processor() string {
	content, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(content)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	content, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of an unknown version"
	}
	return strings.TrimSpace(string(content))
}

// fileSystem is the kind of the one that a directory is on: what a write costs depends on it.
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "an unknown file system"
	}
	kinds := map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x794c7630: "overlayfs"}
	if name, ok := kinds[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", s.Type)
}
