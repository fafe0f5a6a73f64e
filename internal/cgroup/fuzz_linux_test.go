package cgroup

import (
	"strings"
	"testing"
)

// FuzzParseMounts: whoever may mount chooses names in what is read.
func FuzzParseMounts(f *testing.F) {
	f.Add("30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
	f.Add("36 35 98:0 /a\\040b /c\\134d rw - cgroup2 x rw")
	f.Add("- cgroup2")
	f.Fuzz(func(t *testing.T, content string) {
		root, mount, err := parseMounts(content)
		if err != nil && (root != "" || mount != "") {
			t.Errorf("an error, and %q on %q", root, mount)
		}
		if err == nil && !strings.Contains(content, "cgroup2") {
			t.Errorf("%q on %q out of nothing", root, mount)
		}
	})
}
