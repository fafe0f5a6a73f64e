//go:build unix && !linux

package early

func populateHeap() {}
