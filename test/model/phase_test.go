package model

// A phase is how far a contender is. In most of them one request is under way.
type phase uint8

const (
	idle phase = iota // has had its turns, and left nothing behind

	// Requests under way, in the order in which a contender comes to make them.
	trying  // the first half of acquire alone
	asking  // TryLock: who is there?
	joining // acquire
	opening // a watch on what it waits for
	reading // whether that is still there
	blocked // no request: waits for the watch to tell
	// Claim with the comparison of strangers, as the holder that it was behind is gone.
	claimingNext
	claiming // claim
	// The line, because a claim was refused, or because no tail said who is before it.
	listing
	claimingListed // claim without the comparison of the line
	renewing       // granted when validity was over: renew first

	// At work.
	working
	stopping // it was told to

	releasing
	leaving     // the release was refused: delete the place
	withdrawing // leave: delete the place if nothing was granted
	clearing    // the place is gone, on a shared lease: delete what was left of it
	revoking    // the lease
	recalling   // read whether an unknown write was applied

	expiring // sends nothing any more: its lease runs out
	quit     // gave up
	crashed

	phases
)

var phaseNames = [phases]string{
	trying: "first half of acquire", joining: "acquire", claimingNext: "claim", claiming: "claim", claimingListed: "claim", releasing: "release",
	leaving: "leave", withdrawing: "leave",
}

// An ending is what comes after a contender has left the line.
type ending uint8

const (
	next  ending = iota // its turn is over
	again               // it joins again for the same turn
	never               // it has given up
)

// waits is true of who stands in line with a place that it knows of.
func (p phase) waits() bool { return p >= opening && p <= claimingListed }

// acquires is true from the first request to join until the lock is held.
func (p phase) acquires() bool { return p >= trying && p <= renewing }

func (p phase) works() bool { return p == working || p == stopping }

// holds is true from the grant until nothing of it is left.
func (p phase) holds() bool { return p >= renewing && p <= leaving }

func (p phase) over() bool { return p == idle || p == quit || p == crashed }
