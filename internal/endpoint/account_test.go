package endpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

const patient = 30 * time.Second

// An accountTest is an etcd with users, and a gate before it that counts logins.
type accountTest struct {
	*etcdtest.Server
	gate   *etcdtest.Gate
	logins *atomic.Int64
}

func newAccountTest(t *testing.T) *accountTest {
	t.Helper()
	a := &accountTest{Server: etcdtest.Start(t)}
	a.AddUser(t, "worker", "first", "/mine")
	a.EnableAuth(t, "secret")
	a.gate = etcdtest.NewGate(t, a.Endpoint())
	var count etcdtest.Hook
	count, a.logins = etcdtest.Counting("Authenticate")
	a.gate.Intercept(count)
	return a
}

// setPassword has etcd forget the tokens of a user.
func (a *accountTest) setPassword(t *testing.T, password string) {
	t.Helper()
	if _, err := a.Client(t).UserChangePassword(t.Context(), "worker", password); err != nil {
		t.Fatal(err)
	}
}

// client is a client as the command has it.
func client(t *testing.T, env map[string]string, words ...string) *clientv3.Client {
	t.Helper()
	o := options(t, env, words...)
	c, err := o.Config()
	if err != nil {
		t.Fatal(err)
	}
	client, err := o.Dial(t.Context(), c, patient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// get makes a request, again and again where it is not answered, as locks do. It is more patient
// than the client: only the client's end of patience tells what hinders it.
func get(t *testing.T, client *clientv3.Client) (err error) {
	for until := etcdtest.Context(t); until.Err() == nil; {
		ctx, cancel := context.WithTimeout(until, longLogin*3/5)
		_, err = client.Get(ctx, "/mine")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return err
}

// together makes n requests at once.
func together(t *testing.T, client *clientv3.Client, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := get(t, client); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// counted checks how many logins there were since the last time.
func (a *accountTest) counted(t *testing.T, most int64) {
	t.Helper()
	if n := a.logins.Swap(0); n < 1 || n > most {
		t.Errorf("%d logins, at most %d are needed", n, most)
	}
}

// TestOneLogin serves all requests and streams of a client.
func TestOneLogin(t *testing.T) {
	a := newAccountTest(t)
	client := client(t, nil, "-e", a.gate.Endpoint(), "--user", "worker", "--password", "first")
	if a.logins.Load() > 0 {
		t.Error("there was a login before the first request")
	}
	together(t, client, 50)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		if answer := <-client.Watch(ctx, "/mine", clientv3.WithCreatedNotify()); answer.Err() != nil {
			t.Error(answer.Err())
		}
		cancel()
	}
	a.counted(t, 1)
	a.setPassword(t, "first")
	together(t, client, 50)
	a.counted(t, 2) // a request that was sent with the old token may be answered after the login
}

// TestPasswordIsReadAgain when etcd does not accept the old one any more.
func TestPasswordIsReadAgain(t *testing.T) {
	a := newAccountTest(t)
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	client := client(t, nil, "-e", a.gate.Endpoint(), "--user", "worker", "--password-file", file)
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	a.setPassword(t, "second")
	a.logins.Store(0)
	for range 20 {
		if err := get(t, client); !errors.Is(err, rpctypes.ErrAuthFailed) {
			t.Errorf("with the old password: %v", err)
		}
	}
	a.counted(t, 10) // one in a second, and each of these requests is repeated by nobody
	write("second")
	if err := get(t, client); err != nil {
		t.Errorf("with the new password: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	a.setPassword(t, "second")
	if err := get(t, client); err != nil {
		t.Errorf("without the file: %v", err)
	}
}

// TestPasswordFromAPipe: what can be read once is read once.
func TestPasswordFromAPipe(t *testing.T) {
	a := newAccountTest(t)
	pipe := filepath.Join(t.TempDir(), "password")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go os.WriteFile(pipe, []byte("first"), 0)
	client := client(t, nil, "-e", a.gate.Endpoint(), "--user", "worker", "--password-file", pipe)
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	a.setPassword(t, "first")
	if err := get(t, client); err != nil {
		t.Error(err)
	}
}

// TestUsersLater: etcd begins to ask for users while a client is there.
func TestUsersLater(t *testing.T) {
	s := etcdtest.Start(t)
	s.AddUser(t, "worker", "first", "/mine")
	client := client(t, map[string]string{"ETCDCTL_USER": "worker:first"}, "-e", s.Endpoint())
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	s.EnableAuth(t, "secret")
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
}

// TestLoginAtASilentMember: the next member is asked, and not all at once.
func TestLoginAtASilentMember(t *testing.T) {
	a := newAccountTest(t)
	silent := etcdtest.NewLink(t, a.Endpoint())
	client := client(t, nil, "-e", silent.Endpoint()+","+a.gate.Endpoint(), "--user", "worker", "--password", "first")
	for range 4 { // by both ways, of which the gate counts the logins of one
		if err := get(t, client); err != nil {
			t.Fatal(err)
		}
	}
	a.setPassword(t, "first")
	silent.Silence()
	a.logins.Store(0)
	together(t, client, 3)
	a.counted(t, 3)
}

// TestWhyNoLogin: what hinders a login is told.
func TestWhyNoLogin(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.WithTLS())
	client := client(t, nil, "-e", s.Endpoint(), "--user", "worker", "--password", "first", "--cacert", s.Certs().StrangeCA)
	if err := get(t, client); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("it says %v", err)
	}
}
