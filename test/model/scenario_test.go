package model

// A scenario is who takes part, and what may happen to them.
type scenario struct {
	without rule
	// Joining, or trying to begin with the first half alone; idle: does not take part.
	start    [ours]phase
	try      [ours]bool  // TryLock
	unlinked [ours]bool  // may not write the tail
	turns    [ours]uint8 // 1 if not given
	lease    [ours]uint8 // contenders with one number share a lease
	locks    uint8       // how often the Mutex locks
	rereads  bool        // waiters read again after renewals; without, only watches tell
	timed    bool        // leases have clocks
	faults   [faults]uint8
}

// own is the leases of contenders that do not share any; shared is those of two that do.
var own, pair = [ours]uint8{0, 1, 2}, [ours]uint8{0, 0, 2}

func (s *scenario) shared(x int) bool {
	for y := range s.lease {
		if y != x && s.lease[y] == s.lease[x] {
			return true
		}
	}
	return false
}

// checked is what is checked of a scenario. Where there is time, it alone could bring on what
// somebody waits for.
func (s *scenario) checked() property {
	if s.timed {
		return all &^ nobodyStuck
	}
	return all
}

// initial is the state in which all have sent their first request.
func (s *scenario) initial() state {
	w := world{state: state{budget: s.faults, tail: nothing}, scenario: s}
	for x := range w.who {
		w.who[x] = somebody(s.start[x])
		if s.start[x] != idle {
			w.who[x].turns, w.who[x].clock = max(s.turns[x], 1), newClock(s)
		}
	}
	w.mutex = neighbour{before: nothing}
	if s.locks > 0 {
		w.mutex = neighbour{phase: joining, turns: s.locks, before: nothing}
	}
	w.settle()
	return w.state
}

// somebody is a contender that knows nothing yet, or any more.
func somebody(p phase) contender { return contender{phase: p, before: nothing, next: nothing} }

// crowd checks that at most one is at work. Who lost the lock by force does not count: it is told,
// and stops.
func (w *world) crowd() {
	n := 0
	for x := range w.who {
		if w.who[x].phase.works() && !w.is(x, forced) {
			n++
		}
	}
	if w.mutex.phase == working {
		n++
	}
	if n > 1 {
		w.broken |= oneHolder
	}
}

// finished is true when all have had their turn or are gone, and nothing is left.
func (s *state) finished() bool {
	for x := range s.who {
		if !s.who[x].phase.over() || s.keys[x].create != 0 {
			return false
		}
	}
	if s.keys[stray].create != 0 || s.tail != nothing {
		return false
	}
	return (s.mutex.phase == idle || s.mutex.phase == crashed) && s.keys[mutex].create == 0 && s.keys[lock].create == 0
}

// steps are all there are, of each contender, of each late request, or once.
var steps = []struct {
	times int
	make  func(w *world, x int) bool
}{
	{ours, (*world).request}, {ours, (*world).wake}, {ours, (*world).looksBack}, {ours, (*world).hears}, {ours, (*world).reread}, {ours, (*world).renew},
	{ours, (*world).look}, {ours, (*world).finish}, {ours, (*world).finishUnknowing}, {ours, (*world).die}, {ours, (*world).expire},
	{ours, (*world).readBefore}, {ours, (*world).answeredAfter},
	{1, alone((*world).mutexRequest)}, {1, alone((*world).mutexWakes)}, {1, alone((*world).mutexFinishes)}, {1, alone((*world).mutexExpires)},

	{1, alone((*world).takesOut)}, {1, alone((*world).sweeps)}, {1, alone((*world).sessionExpires)},

	{ours, (*world).timeOut}, {slots, (*world).applyLate},
	{ours, (*world).leaveLine}, {ours, (*world).dies}, {1, alone((*world).mutexDies)},
	{ours, (*world).loseTouch}, {ours, (*world).fallSilent},

	{1, alone((*world).deletesKey)}, {1, alone((*world).overwritesKey)}, {1, alone((*world).putsKey)}, {1, alone((*world).takesKeyBack)},
	{ours, (*world).deletesPlace}, {1, alone((*world).deletesStray)}, {ours, (*world).revokesLease}, {1, alone((*world).putForeign)},

	{1, alone((*world).tick)}, {1, alone((*world).elect)},
	{ours, (*world).sendRenewal}, {ours, (*world).acknowledge}, {ours, (*world).acknowledgeInVain}, {ours, (*world).countRenewal},
}

func alone(step func(*world) bool) func(*world, int) bool {
	return func(w *world, _ int) bool { return step(w) }
}

// requests are what etcd does with a contender's request that is under way, and what the contender
// does then. That both are one step leaves nothing out: whatever can happen between an answer and
// what follows from it can happen before the request that follows is applied.
var requests = [phases]func(*world, int){
	trying: (*world).tried, asking: (*world).asked, joining: (*world).joined, opening: (*world).opened, reading: (*world).read,
	claimingNext: (*world).claimed, claiming: (*world).claimed, listing: (*world).listedLine, claimingListed: (*world).claimed, renewing: (*world).renewed,
	releasing: (*world).released, leaving: (*world).left, withdrawing: (*world).withdrawn,
	clearing: (*world).cleared, revoking: (*world).revoked, recalling: (*world).recalled,
}

func (w *world) request(x int) bool {
	r := requests[w.who[x].phase]
	if r == nil {
		return false
	}
	r(w, x)
	return true
}
