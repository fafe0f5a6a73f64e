package endpoint

import (
	"cmp"

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

// homeless is the user's own directory where that is not known, as there is no home; no path looks
// like it.
const homeless = "\x00"

// addEmbedded registers --embedded[=DIR].
func (o *Options) addEmbedded(f *pflag.FlagSet) {
	own, _ := serverdir.Default()
	f.VarPF(&o.embedded, "embedded", "", "").NoOptDefVal = cmp.Or(own, homeless)
}

// GivenEmbedded returns --embedded as the user has given it, behind a blank, to be typed again in a
// shell.
func (o *Options) GivenEmbedded() string {
	return typed(o.own.Lookup("embedded"), o.embedded.String())
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
	switch o.embedded {
	case "":
		return "", o.bad("embedded", "leave the = away for the default directory", "the directory's name is empty")
	case homeless:
		_, err := serverdir.Default()
		return "", o.bad("embedded", "name one with --embedded=DIR", "there is no directory: %w", err)
	}
	return string(o.embedded), nil
}
