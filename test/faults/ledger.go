//go:build linux

package faults

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A ledger is a counter in etcd for the commands of a trial to work on, and the history of that
// work. It accepts a number only from who still has the lock, by its fencing token. Their way to it
// is not broken by any fault.
type ledger struct {
	client   *clientv3.Client
	lock     string
	counter  string
	ctx      context.Context
	stop     context.CancelFunc
	listener net.Listener
	workers  sync.WaitGroup

	mu      sync.Mutex
	entries []entry
}

// An entry is one piece of work: a number was read, and the next one written.
type entry struct {
	by        string
	token     int64
	number    int
	outcome   string
	call, end time.Duration
}

// What can become of a number.
const (
	written = "ok"
	refusal = "refused"
	unknown = "unknown"
)

// keep keeps a ledger on a socket until close.
func keep(ctx context.Context, client *clientv3.Client, lock, socket string) (*ledger, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	l := &ledger{client: client, lock: lock, counter: "/faults-counter" + lock, listener: listener}
	l.ctx, l.stop = context.WithCancel(ctx)
	l.workers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.workers.Go(func() {
				defer context.AfterFunc(l.ctx, func() { conn.Close() })()
				defer conn.Close()
				l.serve(conn)
			})
		}
	})
	return l, nil
}

func (l *ledger) close() {
	ctx, cancel := context.WithTimeout(l.ctx, requestLimit)
	l.client.Delete(ctx, l.counter)
	cancel()
	l.stop()
	l.listener.Close()
	l.workers.Wait()
}

// requestLimit bounds each request to etcd of the trial itself.
const requestLimit = 3 * time.Second

func (l *ledger) serve(conn net.Conn) {
	e := entry{}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		words := strings.Fields(lines.Text())
		answer := "?"
		switch {
		case len(words) == 3 && words[0] == "get":
			e = entry{by: words[1], call: beat.Now()}
			e.token, _ = strconv.ParseInt(words[2], 10, 64) // 0 is nobody's
			if n, err := l.read(); err == nil {
				answer = strconv.Itoa(n)
			}
		case len(words) == 2 && words[0] == "set":
			e.number, _ = strconv.Atoi(words[1])
			e.outcome = l.write(e.token, e.number)
			e.end = beat.Now()
			l.mu.Lock()
			l.entries = append(l.entries, e)
			l.mu.Unlock()
			answer = e.outcome
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

func (l *ledger) read() (int, error) {
	ctx, cancel := context.WithTimeout(l.ctx, requestLimit)
	defer cancel()
	resp, err := l.client.Get(ctx, l.counter)
	if err != nil || len(resp.Kvs) == 0 {
		return 0, err
	}
	return strconv.Atoi(string(resp.Kvs[0].Value))
}

func (l *ledger) write(token int64, number int) string {
	ctx, cancel := context.WithTimeout(l.ctx, requestLimit)
	defer cancel()
	resp, err := l.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(l.lock), "=", token)).
		Then(clientv3.OpPut(l.counter, strconv.Itoa(number))).
		Commit()
	switch {
	case err != nil:
		return unknown
	case !resp.Succeeded:
		return refusal
	}
	return written
}

// tokenOf returns the token on which somebody has worked, 0 if he has not.
func (l *ledger) tokenOf(name string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.by == name {
			return e.token
		}
	}
	return 0
}

// sum returns how many numbers were written, and how many were refused while who wrote them still
// ran: what was under way when he ended may come after the release.
func (l *ledger) sum(last func(by string) time.Duration) (wrote, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		switch e.outcome {
		case written:
			wrote++
		case refusal:
			if e.end < last(e.by) {
				refused++
			}
		}
	}
	return wrote, refused
}

// history returns the work as operations.
func (l *ledger) history() (ops []porcupine.Operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clients := map[string]int{}
	for _, e := range l.entries {
		if _, ok := clients[e.by]; !ok {
			clients[e.by] = len(clients)
		}
		end := e.end
		if e.outcome == unknown { // it may still come, or never
			end = forever
		}
		ops = append(ops, porcupine.Operation{ClientId: clients[e.by], Input: e.number, Call: int64(e.call), Output: e.outcome, Return: int64(end)})
	}
	return ops
}
