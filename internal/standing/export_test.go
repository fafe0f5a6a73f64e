package standing

import (
	"maps"
	"slices"
)

// Arrows returns the changes of state that there are.
func Arrows() (all [][2]State) {
	for _, from := range slices.Sorted(maps.Keys(arrows)) {
		for _, to := range arrows[from] {
			all = append(all, [2]State{from, to})
		}
	}
	return all
}

// Disable takes an arrow away until it is given back.
func Disable(arrow [2]State) (giveBack func()) {
	from := arrow[0]
	all := arrows[from]
	arrows[from] = slices.DeleteFunc(slices.Clone(all), func(to State) bool { return to == arrow[1] })
	return func() { arrows[from] = all }
}
