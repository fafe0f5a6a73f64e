//go:build !linux

package gentle

// GiveWay does nothing.
func GiveWay() {}
