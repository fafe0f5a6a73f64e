package guard

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAttested: only the file is believed that a guard of this user wrote, whole, for this lease,
// since this boot.
func TestAttested(t *testing.T) {
	const lease = 0x694d7f3a
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	file := filepath.Join(dir, "etcdlock", "dead-694d7f3a")
	if Attested(lease) {
		t.Error("attested without a file")
	}
	write := func() string {
		t.Helper()
		os.Remove(file)
		if err := Attest(lease); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	write()
	if !Attested(lease) {
		t.Error("the guard's own attestation is not believed")
	}
	if Attested(lease + 1) {
		t.Error("believed for another lease")
	}
	put := func(text string, mode os.FileMode) {
		t.Helper()
		os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(file, mode)
	}
	whole := write()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":                "",
		"half":                 whole[:len(whole)/2],
		"all but the last":     whole[:len(whole)-1],
		"more":                 whole + "x",
		"of an earlier boot":   strings.Replace(whole, string(boot), "00000000-0000-4000-8000-000000000000\n", 1),
		"of another lease":     strings.Replace(whole, "694d7f3a", "694d7f3b", 1),
		"of another user's":    strings.Replace(whole, "user ", "user 1", 1),
		"of another programme": "dead\n",
	} {
		put(text, 0o600)
		if Attested(lease) {
			t.Errorf("%s: believed", name)
		}
	}
	put(whole, 0o600)
	if !Attested(lease) {
		t.Error("the same text by hand: it is the text that counts")
	}
	put(whole, 0o644)
	if Attested(lease) {
		t.Error("one that others may read was not made by a guard, and is believed")
	}
	if os.Geteuid() == 0 {
		write()
		if err := os.Chown(file, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if Attested(lease) {
			t.Error("another user's is believed")
		}
	}
	write()
	if err := os.Rename(file, file+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file+"-moved", file); err != nil {
		t.Fatal(err)
	}
	if Attested(lease) {
		t.Error("a link is believed")
	}
	os.Remove(file)
	write()
	os.Chmod(filepath.Dir(file), 0o777)
	if Attested(lease) {
		t.Error("believed in a directory that everybody may write to")
	}
	os.Chmod(filepath.Dir(file), 0o700)
	text, err := attestation(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "dead-0"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if Attest(0) == nil || Attested(0) {
		t.Error("something is attested of keys that hang on no lease")
	}
	Forget(lease)
	if _, err := os.Stat(file); err == nil {
		t.Error("not forgotten")
	}
}

// TestBells: all who wait hear of an attestation, with none of what a user may have few of, and
// leave nothing behind, also where the path of the directory is too long for that of a socket.
func TestBells(t *testing.T) {
	t.Run("path", func(t *testing.T) { hearBells(t, t.TempDir()) })
	t.Run("long path", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		hearBells(t, dir)
	})
}

func hearBells(t *testing.T, dir string) {
	t.Setenv("XDG_RUNTIME_DIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	const waiters = 200
	heard := make(chan struct{}, waiters)
	ready := make(chan struct{}, waiters)
	var wg sync.WaitGroup
	for range waiters {
		wg.Go(func() {
			times := 0
			OnAttestation(ctx, func() {
				if times++; times == 1 {
					ready <- struct{}{}
				} else if times == 2 {
					heard <- struct{}{}
				}
			})
		})
	}
	for range waiters {
		<-ready
	}
	// One that was killed leaves its socket.
	gone, err := newBell()
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	old := filepath.Join(dir, "etcdlock", attestationPrefix+"1")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-stale-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := Attest(2); err != nil {
		t.Fatal(err)
	}
	for range waiters {
		<-heard
	}
	cancel()
	wg.Wait()
	files, err := os.ReadDir(filepath.Join(dir, "etcdlock"))
	if err != nil || len(files) != 1 || files[0].Name() != attestationPrefix+"2" {
		t.Errorf("left: %v, %v", files, err)
	}
}

func TestOrders(t *testing.T) {
	o := Order{ValidUntil: 1 << 40, By: 7, Lease: -5, pgid: 42, first: 3, path: "/bin/x", interpreter: "x", Env: []string{"A=1", "B=", "C=x\ny"}}
	got, err := parseOrder(o.message(start))
	if err != nil || !reflect.DeepEqual(got, o) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "S", "S1234567", string(o.message(start)[:len(o.message(start))-1])} {
		if _, err := parseOrder([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// FuzzMessages: whatever comes through the channel is read or refused, and an order comes back as
// it was.
func FuzzMessages(f *testing.F) {
	f.Add(Order{ValidUntil: 1 << 40, By: 7, Lease: -5, pgid: 42, first: 3, path: "/bin/x", Env: []string{"A=1"}}.message(start))
	f.Add(extension{1, 2, 3}.message())
	f.Add(Measure{1, 2, 3}.message())
	f.Add(numbers(exited, 1, 2))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, m []byte) {
		if o, err := parseOrder(m); err == nil {
			if again, err := parseOrder(o.message(start)); err != nil || !reflect.DeepEqual(again, o) {
				t.Errorf("%+v came back as %+v, %v", o, again, err)
			}
		}
		parseExtension(m)
		parseMeasure(m)
		parseNumbers(m)
	})
}

// FuzzAttested: nothing but the text of a guard is believed.
func FuzzAttested(f *testing.F) {
	const lease = 77
	want, err := attestation(lease)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(want)
	f.Add(want + "x")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		t.Setenv("XDG_RUNTIME_DIR", dir)
		if err := os.Mkdir(filepath.Join(dir, "etcdlock"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(attestationPath(filepath.Join(dir, "etcdlock"), lease), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if Attested(lease) != (text == want) {
			t.Errorf("%q: believed: %v", text, Attested(lease))
		}
	})
}
