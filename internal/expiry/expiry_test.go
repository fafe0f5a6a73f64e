package expiry

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestHasEnded: that a lease has ended is known only if etcd has said shortly before that it was
// about to. After an older answer it may have been renewed, and given back.
func TestHasEnded(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for name, tt := range map[string]struct {
		left, since  time.Duration // the last answer, and how long ago it was asked for
		ended, known bool
	}{
		"it cannot have ended":           {left: 2 * time.Second, since: 1900 * time.Millisecond, known: true},
		"it was about to end":            {left: 0, since: 900 * time.Millisecond, ended: true, known: true},
		"it was not asked for in time":   {left: 0, since: 1100 * time.Millisecond},
		"it was seldom asked for":        {left: time.Second, since: 1250 * time.Millisecond},
		"it was asked for long ago":      {left: 2 * time.Second, since: 2900 * time.Millisecond},
		"it was not asked for for a day": {left: time.Minute, since: 24 * time.Hour},
	} {
		grant, err := client.Grant(ctx, 60)
		if err == nil {
			_, err = client.Revoke(ctx, grant.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		ls, asked := New(client), time.Now()
		ls.Use(grant.ID)
		ls.known[grant.ID].asked, ls.known[grant.ID].until = asked, asked.Add(tt.left)
		if ended, known := ls.HasEnded(ctx, grant.ID, asked.Add(tt.since)); ended != tt.ended || known != tt.known {
			t.Errorf("%s: ended %v, known %v", name, ended, known)
		}
	}
	ls := New(client)
	grant, err := client.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for id, isKnown := range map[clientv3.LeaseID]bool{clientv3.NoLease: true, grant.ID: true, grant.ID + 1: false} {
		if ended, known := ls.HasEnded(ctx, id, time.Now()); ended || known != isKnown {
			t.Errorf("lease %x: ended %v, known %v", id, ended, known)
		}
	}
}
