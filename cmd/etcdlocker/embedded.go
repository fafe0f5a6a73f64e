package main

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/etcdlock/etcdlock/internal/serverdir"
)

// idleExit is when an embedded etcd that we started leaves.
const idleExit = 10 * time.Minute

// Times between two looks at an embedded etcd that is gone: after a start, and after one that
// failed.
const (
	lookAgain  = 250 * time.Millisecond
	startAgain = time.Second
)

// startServer finds the embedded etcd, which it starts if it does not run.
func (l *locker) startServer(ctx context.Context) error {
	endpoint, started, err := serverdir.Start(ctx, l.embedded, idleExit)
	if err != nil {
		return l.explain(err)
	}
	if started {
		l.voice.notef("started etcd in %s: its locks are those of this machine and user alone", l.embedded)
	}
	l.etcd.Endpoints = endpoint
	return nil
}

// keepServer starts the embedded etcd again whenever it takes no connections any more, until the
// client is closed. Its data are on disk, leases among them: who holds a lock still does, and
// whoever waits for one has kept its place. The end of validity is where it was, and moves with the
// first renewal that etcd answers.
func (l *locker) keepServer(client *clientv3.Client) {
	ctx, conn := client.Ctx(), client.ActiveConnection()
	for said := false; ctx.Err() == nil; {
		if state := conn.GetState(); state != connectivity.TransientFailure {
			said = said && state != connectivity.Ready
			conn.WaitForStateChange(ctx, state)
			continue
		}
		wait := lookAgain
		if err := l.startAgain(ctx, client); err != nil && ctx.Err() == nil {
			if !said {
				l.voice.warnf("the embedded etcd is gone: %v", err)
				l.voice.hintf("%s", l.hint(err))
			}
			said, wait = true, startAgain
		}
		limited, cancel := context.WithTimeout(ctx, wait)
		conn.WaitForStateChange(limited, connectivity.TransientFailure)
		cancel()
	}
}

// startAgain starts the embedded etcd if nobody else does, and has the client connect at once.
func (l *locker) startAgain(ctx context.Context, client *clientv3.Client) error {
	endpoint, started, err := serverdir.Start(ctx, l.embedded, idleExit)
	if err != nil {
		return err
	}
	if started {
		l.voice.notef("the embedded etcd in %s was gone, and has been started again", l.embedded)
	}
	if now := []string{endpoint}; !slices.Equal(client.Endpoints(), now) {
		client.SetEndpoints(now...) // who has started it has another runtime directory
	}
	client.ActiveConnection().ResetConnectBackoff()
	return nil
}
