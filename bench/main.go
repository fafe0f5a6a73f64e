// Command bench measures etcdlock and its peers in turn, in one run, on one etcd, and prints a table with the ratios.
//
//	go -C bench run . [-rounds 5] [-only uncontended]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/internal/embedded"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often each side is measured; medians are printed")
	only := flag.String("only", "", "measure only what has this in its name")
	flag.Parse()
	if err := run(*rounds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int, only string) error {
	dir, err := os.MkdirTemp("", "etcdlock-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, build := range [][]string{
		{"build", "-C", "..", "-o", dir, "./cmd/etcdlocker"},
		{"build", "-o", filepath.Join(dir, "etcdctl"), "go.etcd.io/etcd/etcdctl/v3"},
	} {
		if out, err := buildCommand(build).CombinedOutput(); err != nil {
			return fmt.Errorf("building: %w: %s", err, out)
		}
	}
	server, err := embedded.Start(context.Background(), filepath.Join(dir, "etcd"))
	if err != nil {
		return err
	}
	defer server.Close()
	b := &bench{dir: dir, endpoint: server.Endpoint, rounds: rounds}
	fmt.Printf("%-52s %12s %12s %8s   %s\n", "what (median of rounds)", "etcdlock", "peer", "ratio", "target")
	for _, m := range b.all() {
		if !strings.Contains(m.what, only) {
			continue
		}
		if err := b.measure(m); err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
	}
	return nil
}

// A measurement compares one figure of ours with one of a peer's.
type measurement struct {
	what, unit, target string
	ours, peer         func() (float64, error)
}

// bench is one run.
type bench struct {
	dir, endpoint string
	rounds        int
	keys          int
}

// measure takes turns, so that whatever else the machine does hits both sides. The ratio is the median of those of the
// rounds: what changes slowly does not change it.
func (b *bench) measure(m measurement) error {
	var ours, peer, ratios []float64
	for range b.rounds {
		for _, side := range []struct {
			f   func() (float64, error)
			out *[]float64
		}{{m.ours, &ours}, {m.peer, &peer}} {
			v, err := side.f()
			if err != nil {
				return err
			}
			*side.out = append(*side.out, v)
		}
		ratios = append(ratios, ours[len(ours)-1]/peer[len(peer)-1])
	}
	o, p := median(ours), median(peer)
	fmt.Printf("%-52s %9.2f %-3s %8.2f %-3s %7.2fx   %s\n", m.what, o, m.unit, p, m.unit, median(ratios), m.target)
	return nil
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// buildCommand builds both sides as they are released: without cgo.
func buildCommand(args []string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
