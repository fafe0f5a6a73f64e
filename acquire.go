package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/place"
)

// errStartOver says that a place in line is gone, or that it cannot be known whether there is one: whatever may be
// left of it is fenced off, and another one is taken at the end of the line.
var errStartOver = errors.New("the place in line is gone")

// fenceLimit bounds what is done to clean up after the caller's context has ended.
const fenceLimit = time.Second

// acquire takes a place in line and waits for its turn.
func (l *Lock) acquire(ctx context.Context, s settings, try bool) (*contender, error) {
	err := l.prepare(ctx, s)
	for {
		if err != nil {
			return nil, err
		}
		c := newContender(l, s, l.atHand)
		if err = c.enter(ctx, try); err == nil {
			return c, nil
		}
		c.stop()
		if errors.Is(err, ErrBusy) && c.create == 0 {
			return nil, err // nothing was written: the lease can serve again
		}
		l.atHand = nil
		if errors.Is(err, errStartOver) && ctx.Err() == nil {
			s.log.Warn("place in line lost, taking another", "key", l.key, "cause", err)
			err = l.startOver(ctx, c, s)
			continue
		}
		c.fence(ctx)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
	}
}

// startOver fences off what a contender may have left, and prepares for the next. It waits for etcd as long as it takes.
func (l *Lock) startOver(ctx context.Context, c *contender, s settings) error {
	if err := revoke(ctx, l.client, c.lease.id, c.lease.first); err != nil {
		c.fence(ctx)
		return fmt.Errorf("acquiring lock %q: %w", l.key, err)
	}
	for {
		if err := l.prepare(ctx, s); !errors.Is(err, ErrNoAnswer) {
			return err
		}
	}
}

// fence revokes the lease of a contender that gives up, also when ctx has ended, and thereby takes back its place,
// and the lock if it was granted meanwhile. What cannot be revoked runs out.
func (c *contender) fence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceLimit)
	defer cancel()
	if err := revoke(ctx, c.lease.client, c.lease.id, c.lease.first); err != nil {
		c.log.Warn("the place in line stays until its lease runs out", "key", c.key, "cause", err)
	}
}

// enter joins the line and waits. It returns nil when the lock is held, with time to use it.
func (c *contender) enter(ctx context.Context, try bool) error {
	won := false
	var err error
	if try || c.alone {
		if won, err = c.joinAlone(ctx); err != nil {
			return err
		}
	}
	if try && !won {
		if err := c.busy(ctx); err != nil {
			return err
		}
	}
	var before *mvccpb.KeyValue
	if !won {
		if won, before, err = c.join(ctx); err != nil {
			return err
		}
	}
	for waiting := false; !won; waiting = true {
		if before != nil && try {
			return ErrBusy
		}
		if before != nil {
			if !waiting {
				c.onWait()
			}
			c.log.Debug("waiting", "key", c.key, "behind", string(before.Key))
			if err := c.outlast(ctx, before); err != nil {
				return err
			}
		}
		if won, before, err = c.claim(ctx); err != nil {
			return err
		}
	}
	// With little validity left, as after an outage, a renewal comes before the clock is watched: nothing runs under the lock
	// that would have to be stopped, and the lock is not lost as long as etcd has the lease.
	if c.lease.validUntil().Until() < c.grace+2*c.lease.first {
		if _, err := c.lease.renew(ctx, c.state()...); err != nil {
			return c.translate(err)
		}
	}
	c.granted()
	return nil
}

// winning is what makes a place the holder's: the lock's key and the place, written in one revision.
func (c *contender) winning() []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpPut(c.key, c.id, clientv3.WithLease(c.lease.id)),
		c.putPlace(),
	}
}

func (c *contender) putPlace() clientv3.Op {
	return clientv3.OpPut(c.place, c.record, clientv3.WithLease(c.lease.id))
}

// nobody compares true when neither the lock's key nor anything below it is there. The cheap comparison comes first.
func (c *contender) nobody() []clientv3.Cmp {
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(c.key), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(place.Prefix(c.key)).WithPrefix(), "=", 0),
	}
}

func (c *contender) newestPlace(opts ...clientv3.OpOption) clientv3.Op {
	return clientv3.OpGet(place.Prefix(c.key), append(opts, clientv3.WithLastCreate()...)...)
}

// joinAlone takes the lock if nobody is there at all, and writes nothing if somebody is. It asks for less than join does,
// so it is what a contender begins with that met nobody the last time.
func (c *contender) joinAlone(ctx context.Context) (won bool, err error) {
	resp, err := c.write(ctx, c.nobody(), c.winning(), nil)
	if err != nil {
		c.create = -1 // not known
		return false, err
	}
	if resp.Succeeded {
		c.win(resp.Header.Revision, resp.Header.Revision)
	}
	return resp.Succeeded, nil
}

// busy returns an ErrBusy that names who is there, nil if what is there is no place in line.
func (c *contender) busy(ctx context.Context) error {
	resp, err := c.lease.read(ctx, clientv3.OpGet(c.key), c.newestPlace())
	if err != nil {
		return c.translateRead(ctx, err)
	}
	if key := getOne(resp, 0); key != nil {
		return &busyError{fmt.Sprintf("lock %q is held by %q", c.key, key.Value)}
	}
	if newest := getOne(resp, 1); newest != nil && place.Is(c.key, newest) {
		return &busyError{fmt.Sprintf("lock %q is not free: somebody stands in line for it", c.key)}
	}
	return nil
}

// join takes the lock if nobody is there, else a place at the end of the line: one round trip either way. Before is
// what stands in the way, nil if it seems that nothing does.
func (c *contender) join(ctx context.Context) (won bool, before *mvccpb.KeyValue, err error) {
	// Gets before a put in one transaction see the line as it was before it.
	resp, err := c.write(ctx, c.nobody(), c.winning(), []clientv3.Op{clientv3.OpGet(c.key), c.newestPlace(), c.putPlace()})
	if err != nil {
		return false, nil, err
	}
	rev := resp.Header.Revision
	if resp.Succeeded {
		c.win(rev, rev)
		return true, nil, nil
	}
	c.create = rev
	c.entered()
	before, err = c.obstacle(ctx, getOne(resp, 0), getOne(resp, 1))
	return false, before, err
}

// win takes note that a revision made the contender the holder.
func (c *contender) win(create, token int64) {
	c.create = create
	c.token.Store(token)
}

// write makes a transaction of which the outcome, if unknown, must be fenced: it is not repeated.
func (c *contender) write(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
	for {
		try, cancel := context.WithTimeout(ctx, growth*c.lease.first)
		resp, err := c.lease.txn(try, cmps, then, els)
		cancel()
		if err == nil {
			return resp, nil
		}
		if judge(err) == notNow && sleep(ctx, pauseMin) {
			continue
		}
		return nil, c.translate(err)
	}
}

// rewrite makes a transaction that may be applied more than once, until etcd answers it. Repeated says that one try at
// least has an unknown outcome.
func (c *contender) rewrite(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (resp *clientv3.TxnResponse, repeated bool, err error) {
	var tries atomic.Int32
	resp, err = persist(ctx, c.lease.first, isFinal, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		tries.Add(1)
		return c.lease.txn(ctx, cmps, then, els)
	})
	return resp, err != nil || tries.Load() > 1, err
}

// translate says of an error whether the contender is to start over.
func (c *contender) translate(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, errLeaseGone), errors.Is(err, errHistoryLost):
		return fmt.Errorf("%w: %w", errStartOver, err)
	case isRefused(err):
		return err
	}
	return fmt.Errorf("%w: outcome unknown: %w", errStartOver, err)
}

// obstacle finds what stands in the way of a place: the newest older place, else the lock's key, else nothing. What
// is known of either comes as an argument; a key that is not a place means that the line has to be listed.
func (c *contender) obstacle(ctx context.Context, key, newest *mvccpb.KeyValue) (*mvccpb.KeyValue, error) {
	if newest != nil && !place.Is(c.key, newest) {
		older := clientv3.OpGet(place.Prefix(c.key), clientv3.WithPrefix(), clientv3.WithMaxCreateRev(c.create-1))
		resp, err := c.lease.read(ctx, older)
		if err != nil {
			return nil, c.translate(err)
		}
		newest = nil
		if line := place.Filter(c.key, resp.Responses[0].GetResponseRange().Kvs); len(line) > 0 {
			newest = line[len(line)-1]
		}
	}
	if newest != nil {
		return newest, nil
	}
	return key, nil
}

// outlast waits until an obstacle is gone: its key absent, or created anew. (A Mutex that locks again does so under
// the same key, behind us. To take that for the old one would be to wait for each other for ever.)
func (c *contender) outlast(ctx context.Context, before *mvccpb.KeyValue) error {
	key := string(before.Key)
	w, watching := openWatch(ctx, c.lease, key)
	defer func() { w.close() }()
	for {
		there, err := c.inTheWay(ctx, before)
		if err != nil || !there {
			return err
		}
		if !watching && ctx.Err() == nil {
			w.close()
			w, watching = openWatch(ctx, c.lease, key)
			if watching {
				continue // what came before the watch was confirmed is only seen by reading
			}
		}
		select {
		case resp, ok := <-w.events:
			watching = ok && resp.Err() == nil
			if resp.Err() == nil && goneBy(resp.Events, before) {
				return nil // only a hint: the claim decides
			}
			if !watching && !sleep(ctx, pauseMax) {
				return context.Cause(ctx)
			}
		case <-c.news:
		case <-c.gone:
			return fmt.Errorf("%w: %w", errStartOver, errLeaseGone)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// goneBy reports whether events say that a key went away.
func goneBy(events []*clientv3.Event, kv *mvccpb.KeyValue) bool {
	for _, e := range events {
		if e.Type == clientv3.EventTypeDelete || e.Kv.CreateRevision != kv.CreateRevision {
			return true
		}
	}
	return false
}

// inTheWay reads whether an obstacle is still there, and with it whether our own place is. If that was written, an
// earlier claim may have been applied late: then the next one tells.
func (c *contender) inTheWay(ctx context.Context, before *mvccpb.KeyValue) (bool, error) {
	resp, err := c.lease.read(ctx, clientv3.OpGet(string(before.Key)), clientv3.OpGet(c.place))
	if err != nil {
		return false, c.translateRead(ctx, err)
	}
	kv, own := getOne(resp, 0), getOne(resp, 1)
	if own == nil || own.CreateRevision != c.create {
		return false, fmt.Errorf("%w: deleted from outside", errStartOver)
	}
	return own.ModRevision == c.create && kv != nil && kv.CreateRevision == before.CreateRevision, nil
}

// translateRead is translate for reads, which have no outcome that could be unknown.
func (c *contender) translateRead(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return c.translate(err)
}

// claim takes the lock if it is our turn. If it is not, before says what stands in the way. To repeat a claim whose
// outcome is unknown is safe: it requires our place as it was created, so once one of them was applied, the others
// are refused, and the answer shows that the lock is ours.
func (c *contender) claim(ctx context.Context) (won bool, before *mvccpb.KeyValue, err error) {
	mine := clientv3.Compare(clientv3.ModRevision(c.place), "=", c.create)
	free := clientv3.Compare(clientv3.CreateRevision(c.key), "=", 0)
	first := clientv3.Compare(clientv3.CreateRevision(place.Prefix(c.key)).WithPrefix(), ">", c.create-1)
	won, key, newest, err := c.claimIf(ctx, mine, free, first)
	if won || err != nil {
		return won, nil, err
	}
	if before, err = c.obstacle(ctx, key, newest); before != nil || err != nil {
		return false, before, err
	}
	// What is below the key and older than our place is none of the line, and nothing older can come any more.
	won, key, _, err = c.claimIf(ctx, mine, free)
	return won, key, err
}

func (c *contender) claimIf(ctx context.Context, cmps ...clientv3.Cmp) (won bool, key, newest *mvccpb.KeyValue, err error) {
	els := append(c.state(), c.newestPlace(clientv3.WithMaxCreateRev(c.create-1)))
	resp, repeated, err := c.rewrite(ctx, cmps, c.winning(), els)
	c.strays = c.strays || repeated
	if err != nil {
		return false, nil, nil, c.translateRead(ctx, err)
	}
	if resp.Succeeded {
		c.win(c.create, resp.Header.Revision)
		return true, nil, nil, nil
	}
	key, own := getOne(resp, 0), getOne(resp, 1)
	switch {
	case own == nil || own.CreateRevision != c.create:
		return false, nil, nil, fmt.Errorf("%w: deleted from outside", errStartOver)
	case key != nil && key.ModRevision == own.ModRevision:
		c.win(c.create, own.ModRevision)
		return true, nil, nil, nil
	case own.ModRevision != c.create:
		return false, nil, nil, fmt.Errorf("%w: overwritten from outside", errStartOver)
	}
	return false, key, getOne(resp, 2), nil
}
