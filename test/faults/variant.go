//go:build linux

package faults

import "slices"

// A variant is another way to hold than one lock alone, with the faults that hit who holds so.
type variant struct {
	name               string
	kept, lost, forced []string // faults, by what becomes of what the holder has
	more               []Fault  // by force, of this variant alone
	isLost, isForced   string   // the ends of the names of two rows
	before, after      func(*trial)
}

// faults returns the faults, in three rows. Before and after are done when a trial is prepared for
// a fault: before what the fault itself needs, and after that.
func (v variant) faults() []Fault {
	all := slices.Concat(networkFaults(), processFaults(), memberFaults(), keyFaults())
	rows := slices.Concat(
		with(named(slices.Clone(all), v.kept...), func(f *Fault) { f.row = v.name }),
		with(named(slices.Clone(all), v.lost...), func(f *Fault) { f.row = v.name + v.isLost }),
		with(append(named(all, v.forced...), v.more...), func(f *Fault) { f.row = v.name + v.isForced }),
	)
	return with(rows, func(f *Fault) {
		own := f.prepare
		f.Name, f.anyone = f.Name+"; "+v.name, false
		f.prepare = func(t *trial) {
			for _, do := range []func(*trial){v.before, own, v.after} {
				if do != nil {
					do(t)
				}
			}
		}
	})
}
