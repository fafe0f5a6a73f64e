// Package validity holds the arithmetic of a lease's life: for how long after a renewal a holder
// may rely on it, and which settings leave it room to work.
package validity

import (
	"fmt"
	"time"
)

// Bounds of a TTL.
const (
	MinTTL = time.Second
	MaxTTL = 24 * time.Hour
)

// NoGrace is a grace that takes no room, where 0 stands for the default.
const NoGrace = time.Nanosecond

// room is what must be left between a renewal that is due and the moment the work is asked to stop:
// time for one exchange with a server that is well.
const room = 100 * time.Millisecond

// Margin is the part of a TTL that is never relied on: 250 ms, because ending a busy tree of
// processes under a CPU quota was measured to take up to 191 ms, and a thousandth of the TTL for
// clocks that run at different speeds.
func Margin(ttl time.Duration) time.Duration { return 250*time.Millisecond + ttl/1000 }

// MaxExtra is how much the margin of a TTL can grow, because ending the work is found to take
// longer: an eighth of the TTL. For a TTL of 2 s that is 250 ms. It is less where the grace takes
// so much of the TTL that a renewal, which is due as much sooner, but not before half of its
// interval, would be due too late.
func MaxExtra(ttl, refresh, grace time.Duration) time.Duration {
	return max(0, min(ttl/8, ttl-Margin(ttl)-grace-room-refresh/2))
}

// MaxAhead is how much sooner than at the end of validity the work can be ended by force, because
// it is found to take longer than the margin allows for: an eighth of the TTL, and less where the
// next renewal would not be due before with room to be made.
func MaxAhead(ttl, refresh time.Duration) time.Duration {
	return max(0, min(ttl/8, ttl-Margin(ttl)-refresh-room))
}

// DefaultGrace is the time between the request to stop and the end of validity: a quarter of the
// TTL, at most 5 s.
func DefaultGrace(ttl time.Duration) time.Duration { return min(5*time.Second, ttl/4) }

// DefaultRefresh is the time between renewals: half of the TTL, or half of what the grace leaves of
// it where that half leaves no room.
func DefaultRefresh(ttl, grace time.Duration) time.Duration {
	if half := ttl / 2; Check(ttl, half, grace) == nil {
		return half
	}
	return max(0, (ttl-grace-Margin(ttl))/2)
}

// A RoomError says which of the three settings leave no room.
type RoomError struct {
	TTL, Refresh, Grace time.Duration
}

// Error names the three settings and the largest refresh interval that would do.
func (e *RoomError) Error() string {
	most := e.TTL - e.Grace - Margin(e.TTL) - room
	if most <= 0 {
		return fmt.Sprintf("a grace of %v leaves no room in a TTL of %v (with %v of safety margin)", e.Grace, e.TTL, Margin(e.TTL))
	}
	return fmt.Sprintf("a refresh interval of %v and a grace of %v leave no room in a TTL of %v (with %v of safety margin, at most %v is left for the refresh interval)",
		e.Refresh, e.Grace, e.TTL, Margin(e.TTL), most)
}

// Check reports whether a renewal can be due, made, and missed, with the grace still ahead: nil or
// a *RoomError.
func Check(ttl, refresh, grace time.Duration) error {
	if grace == NoGrace {
		grace = 0
	}
	if refresh <= 0 || grace < 0 || refresh+grace+Margin(ttl)+room > ttl {
		return &RoomError{TTL: ttl, Refresh: refresh, Grace: grace}
	}
	return nil
}
