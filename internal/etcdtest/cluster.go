package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
)

// Cluster is an etcd of several members, each a process of its own.
type Cluster struct {
	Access
	t       testing.TB
	members []*Process
	links   []*Link // to the members, for each other
}

// StartCluster starts size members, waits until each answers, and kills them when the test is over.
// It needs [Main] in TestMain.
func StartCluster(t testing.TB, size int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	if err := c.prepare(size, newMemberConfig(opts)); err != nil {
		t.Fatalf("cannot start a cluster: %v", err)
	}
	c.Restart()
	return c
}

func (c *Cluster) prepare(size int, common config) (err error) {
	dir := c.t.TempDir()
	if err := common.makeFiles(dir); err != nil {
		return err
	}
	var peers []string
	for i := range size {
		config := common
		config.Name = fmt.Sprintf("m%d", i)
		config.Dir = filepath.Join(dir, config.Name)
		if err := os.Mkdir(config.Dir, 0o700); err != nil {
			return err
		}
		p, err := newProcess(c.t, config, true)
		if err != nil {
			return err
		}
		c.members = append(c.members, p)
		p.config.PeerVia = p.config.PeerAddr
		if config.PeerLinks {
			link := NewLink(c.t, p.config.PeerAddr)
			c.links = append(c.links, link)
			p.config.PeerVia = link.Endpoint()
		}
		peers = append(peers, config.Name+"=http://"+p.config.PeerVia)
	}
	var configs []*config
	for _, p := range c.members {
		p.config.Cluster = strings.Join(peers, ",")
		configs = append(configs, &p.config)
	}
	if c.Access, err = newAccess(configs...); err != nil {
		return err
	}
	for i, p := range c.members {
		p.Access = c.Access
		p.endpoints = c.endpoints[i : i+1]
	}
	return nil
}

// Restart kills the members that run, starts all of them and waits until each answers.
func (c *Cluster) Restart() {
	c.t.Helper()
	for _, p := range c.members {
		p.Kill()
	}
	// One after the other: each new member asks the others whether they have formed a cluster
	// already, and gives up after 1 s on those that have opened their port but do not serve it yet.
	for _, p := range c.members {
		p.start()
		p.await("serving its peers", p.servesPeers)
	}
	for _, p := range c.members {
		p.awaitReady()
	}
}

// servesPeers is nil when the member answers HTTP on its peer port, no matter what.
func (p *Process) servesPeers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.config.PeerAddr+"/version", nil)
	if err != nil {
		return err
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// Member returns the member that answers at Endpoints()[i].
func (c *Cluster) Member(i int) *Process { return c.members[i] }

// PeerLink returns the way to Member(i) of the others, in a cluster [WithPeerLinks]. It carries
// both directions of the connections that they open to it; those that it opens to them go through
// theirs.
func (c *Cluster) PeerLink(i int) *Link { return c.links[i] }

// Leader waits until the members that answer agree on a leader that answers too, and returns it.
func (c *Cluster) Leader() *Process {
	c.t.Helper()
	ctx, cancel := untilDeadline(c.t)
	defer cancel()
	var leader *Process
	err := poll(ctx, func(ctx context.Context) (err error) {
		leader, err = c.leader(ctx)
		return err
	})
	if err != nil {
		c.t.Fatalf("the cluster has no leader: %v", err)
	}
	return leader
}

// leader asks all members once. One that led before it was stopped may still think so: the majority
// decides.
func (c *Cluster) leader(ctx context.Context) (*Process, error) {
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	type answer struct {
		member *Process
		leads  bool
		leader uint64 // 0: none, or no answer
	}
	answers := make(chan answer, len(c.members))
	for _, p := range c.members {
		asking.Go(func() {
			a := answer{member: p}
			if status, err := p.status(ctx); err == nil {
				a.leads, a.leader = status.Leader == status.Header.MemberId, status.Leader
			}
			answers <- a
		})
	}
	votes := map[uint64]int{}
	leads := map[uint64]*Process{}
	for range c.members {
		a := <-answers
		votes[a.leader]++
		if a.leads {
			leads[a.leader] = a.member
		}
		if leads[a.leader] != nil && votes[a.leader] > len(c.members)/2 {
			return leads[a.leader], nil
		}
	}
	return nil, errors.New("no majority agrees on one that answers")
}

func (p *Process) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	config := p.Config()
	config.Context = ctx
	client, err := newClient(config)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Status(ctx, p.Endpoint())
}
