package guard

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestAttested: only the file is believed that a guard of this user wrote, whole, for this lease, since this boot.
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
		if err := attest(lease); err != nil {
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
	Forget(lease)
	if _, err := os.Stat(file); err == nil {
		t.Error("not forgotten")
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
