package etcdlock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// resumed is set for a test binary that plays a holder, to etcd's endpoint and the key.
const resumed = "ETCDLOCK_TEST_RESUMED"

func init() {
	endpoint, key, ok := strings.Cut(os.Getenv(resumed), " ")
	if !ok {
		return
	}
	if err := workAsLongAsHeld(endpoint, key); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// workAsLongAsHeld asks its context before each piece of work, and says whether it was ever told to
// go on after validity had ended.
func workAsLongAsHeld(endpoint, key string) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		return err
	}
	defer client.Close()
	lock, err := etcdlock.New(client, key, "me", 2*time.Second)
	if err != nil {
		return err
	}
	held, err := lock.Lock(context.Background())
	if err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond) // it is looked after
	ctx := held.Context(context.Background())
	fmt.Println("works")
	for {
		left := held.Remaining()
		if err := ctx.Err(); err != nil {
			fmt.Println("ended:", context.Cause(ctx))
			return nil
		}
		if left <= 0 {
			return fmt.Errorf("told to go on %v after the end of validity", -left)
		}
	}
}

// TestResumed: a process that was stopped for longer than its lock was valid, and goes on, never
// sees a context that is not done.
func TestResumed(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for i := range 6 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s /resumed/%d", resumed, s.Endpoint(), i))
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			lines := bufio.NewReader(out)
			if line, _ := lines.ReadString('\n'); line != "works\n" {
				t.Fatal(line)
			}
			cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(3 * time.Second) // for longer than its TTL
			cmd.Process.Signal(syscall.SIGCONT)
			if rest, err := io.ReadAll(lines); err != nil || !strings.HasPrefix(string(rest), "ended: ") {
				t.Errorf("%s, %v", rest, err)
			}
		})
	}
}
