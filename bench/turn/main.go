// Command turn stands in a line of its like, and runs a command when it is its turn:
//
//	turn ENDPOINT KEY [-starter PROGRAM] COMMAND [ARGUMENT...]
//
// It has nothing of what makes a line a lock: no lease, nobody else is in the line, and nobody ends
// the command. With a starter, that program has the command for a child, as a guard has it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

func main() {
	runtime.GOMAXPROCS(1) // as etcdlocker: what it does are short steps, one after the other
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "turn:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint, key string, words []string) error {
	command, err := prepare(words)
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	own, err := await(ctx, client, key)
	if err != nil {
		return err
	}
	failed := command()
	_, err = client.Delete(ctx, own)
	return errors.Join(failed, err)
}

// await stands in line below a key, and returns the place's key when the one before it is gone.
func await(ctx context.Context, client *clientv3.Client, key string) (own string, err error) {
	last, err := client.Get(ctx, key+"/", clientv3.WithLastCreate()...)
	if err != nil {
		return "", err
	}
	var gone clientv3.WatchChan
	if len(last.Kvs) > 0 {
		gone = client.Watch(ctx, string(last.Kvs[0].Key), clientv3.WithRev(last.Header.Revision+1), clientv3.WithFilterPut())
	}
	own = fmt.Sprint(key, "/", os.Getpid())
	if _, err := client.Put(ctx, own, ""); err != nil {
		return "", err
	}
	if gone != nil {
		seen := <-gone
		err = seen.Err()
	}
	return own, err
}

// prepare returns what runs a command to its end. A starter is executed now.
func prepare(words []string) (command func() error, err error) {
	if words[0] != "-starter" {
		return func() error {
			cmd := exec.Command(words[0], words[1:]...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			return cmd.Run()
		}, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "starter"), os.NewFile(uintptr(fds[1]), "starter's end")
	defer theirs.Close()
	starter := exec.Command(words[1], words[2:]...)
	starter.Stdout, starter.Stderr, starter.ExtraFiles = os.Stdout, os.Stderr, []*os.File{theirs}
	if err := starter.Start(); err != nil {
		return nil, err
	}
	return func() error {
		said := make([]byte, 1)
		if _, err := ours.Write(said); err != nil {
			return err
		}
		_, err := ours.Read(said)
		return err
	}, nil
}
