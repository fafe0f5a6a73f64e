package supervise

import (
	"os"
	"testing"
)

// FuzzParseStat: a command chooses its own name, and with it a part of what is read.
func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own), "name")
	f.Add("1 (x) Z 0", ") Z 1 (")
	f.Fuzz(func(t *testing.T, stat, name string) {
		parseStat(1, stat)
		const rest = " S 7 1 1 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 3 0 4711 1 1"
		p, ok := parseStat(5, "5 ("+name+")"+rest)
		if !ok || p.Name != name || p.parent != 7 || p.threads != 3 || p.start != "4711" || p.Zombie || p.Stopped {
			t.Errorf("a process called %q came as %+v, %v", name, p, ok)
		}
	})
}
