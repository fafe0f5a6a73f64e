package etcdtest

import (
	"slices"
	"testing"
	"time"
)

func TestClusterSurvivesItsLeader(t *testing.T) {
	began := time.Now()
	c := StartCluster(t, 3)
	t.Logf("started in %v", time.Since(began))
	client := c.Client(t)
	mustPut(t, client, "a", "1")
	lease, err := client.Grant(Context(t), 1)
	if err != nil || lease.TTL != 1 {
		t.Errorf("shortest lease: %+v, %v", lease, err)
	}

	first := c.Leader()
	first.Kill()
	began = time.Now()
	second := c.Leader()
	t.Logf("another leader after %v", time.Since(began))
	if second == first {
		t.Fatal("a killed member leads")
	}
	if got := value(t, second.Client(t), "a"); got != "1" {
		t.Errorf("under the second leader a = %q", got)
	}
	mustPut(t, second.Client(t), "a", "2")

	first.Restart()
	if got := value(t, first.Client(t), "a"); got != "2" {
		t.Errorf("through the restarted member a = %q", got)
	}
}

func TestClusterStoppedLeaderIsReplaced(t *testing.T) {
	c := StartCluster(t, 3)
	first := c.Leader()
	first.Stop()
	if c.Leader() == first {
		t.Fatal("a stopped member leads")
	}
	first.Cont()
	mustPut(t, first.Client(t), "a", "1")
}

func TestClusterRestartsAfterLosingAll(t *testing.T) {
	c := StartCluster(t, 3)
	mustPut(t, c.Client(t), "a", "1")
	for i := range 3 {
		if got := c.Member(i).Endpoint(); got != c.Endpoints()[i] {
			t.Errorf("member %d answers at %s, not at %s", i, got, c.Endpoints()[i])
		}
		c.Member(i).Kill()
	}
	c.Restart()
	if got := value(t, c.Client(t), "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(c.Endpoints()))); len(sorted) != 3 {
		t.Errorf("endpoints %q", sorted)
	}
}

// TestClusterPeerLinks: a write is not confirmed before it was with another member and back.
func TestClusterPeerLinks(t *testing.T) {
	c := StartCluster(t, 3, WithPeerLinks())
	client := c.Client(t)
	mustPut(t, client, "a", "1")
	const delay = 40 * time.Millisecond
	for i := range 3 {
		c.PeerLink(i).Delay(delay)
	}
	began := time.Now()
	mustPut(t, client, "a", "2")
	if took := time.Since(began); took < 2*delay {
		t.Errorf("a write took %v with a delay of %v each way between the members", took, delay)
	}
}
