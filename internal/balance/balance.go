// Package balance has a client ask the members of etcd in turn, as its own round robin does, and go
// past those that do not answer. Round robin alone can meet a silent member with each request of a
// series, and again each time the set of connections changes.
package balance

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
)

const name = "etcdlock_answering"

func init() { balancer.Register(builder{}) }

// DialOptions are those of a client that goes past silent members.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDisableServiceConfig(), // the client's own names round robin
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"` + name + `": {}}]}`),
	}
}

type builder struct{}

func (builder) Name() string { return name }

// Build returns the balancer of one client.
func (builder) Build(cc balancer.ClientConn, o balancer.BuildOptions) balancer.Balancer {
	return flat{base.NewBalancerBuilder(name, &turns{}, base.Config{}).Build(cc, o)}
}

// flat tells a balancer that knows addresses of those of endpoints.
type flat struct{ balancer.Balancer }

// UpdateClientConnState is told where the members are.
func (f flat) UpdateClientConnState(s balancer.ClientConnState) error {
	s.ResolverState.Addresses = nil
	for _, e := range s.ResolverState.Endpoints {
		s.ResolverState.Addresses = append(s.ResolverState.Addresses, e.Addresses...)
	}
	return f.Balancer.UpdateClientConnState(s)
}
