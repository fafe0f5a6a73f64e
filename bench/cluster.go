package main

import (
	"time"

	"github.com/etcdlock/etcdlock/test/slow"
)

// delay is that of the network between three members, and between them and their clients, in each
// direction. A timer of the kernel that is waited for takes a millisecond at least, so less would
// not be true.
const delay = time.Millisecond

// members are three of a cluster, started when they are needed first.
type members struct {
	dir     string
	cluster *slow.Cluster
}

func (m *members) open() (etcd, error) {
	if m.cluster == nil {
		c, err := slow.Start(m.dir, delay)
		if err != nil {
			return etcd{}, err
		}
		m.cluster = c
	}
	return etcd{endpoints: m.cluster.Endpoints}, nil
}

func (m *members) close() {
	if m.cluster != nil {
		m.cluster.Close()
	}
}
