package lease

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestRenewalsAreLogged: also one that is made beside the renewer, as by Refresh. Who reads the log
// learns from it until when the lock is valid.
func TestRenewalsAreLogged(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	ctx := etcdtest.Context(t)
	timing := Timing{TTL: time.Hour, Refresh: 20 * time.Minute, Grace: time.Minute, Connect: time.Minute}
	l, err := Grant(ctx, client, timing)
	if err != nil {
		t.Fatal(err)
	}
	defer Revoke(ctx, client, l.ID(), time.Second)
	var log bytes.Buffer
	l.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err := l.RenewNow(ctx, "/renewed"); err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{})
	l.Notices.Post(func() { close(told) })
	<-told
	if n := strings.Count(log.String(), "lease renewed"); n != 1 {
		t.Errorf("it is logged %d times: %s", n, log.String())
	}
}
