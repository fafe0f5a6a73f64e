package endpoint

import (
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/duration"
)

// Defaults of how often a connection on which nothing comes is tried, and for how long. gRPC tries
// none more often than every 10 s.
const (
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 5 * time.Second
)

// keepAlive fills in how a connection is tried.
func (o *Options) keepAlive(c *clientv3.Config) (err error) {
	if c.DialKeepAliveTime, err = o.time("keepalive-time", o.KeepAliveTime, keepAliveTime); err != nil {
		return err
	}
	c.DialKeepAliveTimeout, err = o.time("keepalive-timeout", o.KeepAliveTimeout, keepAliveTimeout)
	return err
}

// ConnectTimeout returns the time until etcd must first have answered, if no flag says: least, or
// longer if ETCDCTL_DIAL_TIMEOUT is. A shorter one does not count: etcdctl waits for that long for
// nothing but an answer to a login.
func (o *Options) ConnectTimeout(least time.Duration) (time.Duration, error) {
	limit, err := o.time("dial-timeout", o.dialTimeout, least)
	if limit == 0 {
		return duration.Max, err // it means that there is no limit
	}
	return max(limit, least), err
}

// time reads a duration.
func (o *Options) time(flag, text string, def time.Duration) (time.Duration, error) {
	if text == "" && !o.changed(flag) {
		return def, nil
	}
	d, err := duration.Parse(text)
	if err != nil {
		return def, o.bad(flag, duration.Hint, "%q is %w", text, err)
	}
	return d, nil
}
