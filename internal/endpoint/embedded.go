package endpoint

import (
	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock/internal/serverdir"
)

// A directory is the value of --embedded.
type directory string

// Set is that of a pflag.Value, as are String and Type.
func (d *directory) Set(name string) error { *d = directory(name); return nil }

func (d *directory) String() string { return string(*d) }

// Type is what the help has in the value's place.
func (d *directory) Type() string { return "DIR" }

// addEmbedded registers --embedded[=DIR]. Where the user's own directory cannot be told, as there
// is no home, the flag needs one.
func (o *Options) addEmbedded(f *pflag.FlagSet) {
	own, _ := serverdir.Default()
	f.VarPF(&o.embedded, "embedded", "", "").NoOptDefVal = own
}

// Embedded returns the directory of the embedded etcd, if that was asked for: then the variables
// that name another one do not count. Without it is empty.
func (o *Options) Embedded() (dir string, err error) {
	if !o.changed("embedded") {
		return "", nil
	}
	for _, other := range []string{"etcd", "discovery-srv"} {
		if o.changed(other) {
			return "", o.bad("embedded", "use one of them", "it and --%s name two different servers", other)
		}
	}
	if o.embedded == "" {
		return "", o.bad("embedded", "leave the = away for the default directory", "the directory's name is empty")
	}
	return string(o.embedded), nil
}
