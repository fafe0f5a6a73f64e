package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock/internal/duration"
)

// A length is the value of a flag that etcdlocker would take as well: a number counts seconds.
type length struct {
	of   *time.Duration
	hint string
}

// durationVar registers a flag for a length of time.
func durationVar(f *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	f.Var(length{d, duration.Hint}, name, usage)
}

// secondsVar is durationVar for a time in whole seconds.
func secondsVar(f *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	f.Var(length{d, duration.WholeHint}, name, usage)
}

// Set is that of a pflag.Value, as are String and Type.
func (l length) Set(text string) error {
	d, err := duration.Parse(text)
	if err != nil {
		return fmt.Errorf("it is %w: %s", err, l.hint)
	}
	*l.of = d
	return nil
}

// String returns nothing of no time, which the help need not name as the default.
func (l length) String() string {
	if l.of == nil || *l.of == 0 {
		return ""
	}
	return l.of.String()
}

// Type is what the help has in the value's place.
func (length) Type() string { return "duration" }
