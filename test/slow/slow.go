// Package slow runs an etcd of three members with a slow network between them, for programs that
// are no tests.
package slow

import (
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// Member does not return in a process that was started to be a member. Programs call it before
// anything else.
func Member() { etcdtest.Main(nil) }

// A Cluster has three members, each a process of its own, that sync to disk and have etcd's own
// timing. On Linux they die with the program, however that ends.
type Cluster struct {
	Endpoints []string // also reached through the slow network

	stage *stage
}

// Start starts a cluster with its data below dir. What is sent between its members, or between them
// and their clients, arrives delay later, in each direction.
func Start(dir string, delay time.Duration) (*Cluster, error) {
	c := &Cluster{stage: &stage{dir: dir, deadline: time.Now().Add(time.Minute)}}
	err := c.stage.play(func() {
		members := etcdtest.StartCluster(c.stage, 3, etcdtest.WithStockTicks(), etcdtest.WithSync(), etcdtest.WithPeerLinks())
		for i, endpoint := range members.Endpoints() {
			link := etcdtest.NewLink(c.stage, endpoint)
			link.Delay(delay)
			members.PeerLink(i).Delay(delay)
			c.Endpoints = append(c.Endpoints, link.Endpoint())
		}
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close kills the members.
func (c *Cluster) Close() error { return c.stage.end() }
