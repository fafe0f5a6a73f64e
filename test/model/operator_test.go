package model

// touch notes on whom an act of the operator's tells: on the holder, whether it knows of the grant
// yet or not.
func (w *world) touch() {
	for x := range w.who {
		if own := w.keys[x]; w.who[x].phase.holds() || own.create != 0 && own.mod == w.keys[lock].mod {
			w.set(x, touched)
		}
	}
}

func (w *world) deletesKey() bool {
	if k := w.keys[lock]; k.create == 0 || k.by == 0 || !w.strike(byHand) {
		return false
	}
	w.touch()
	w.now++
	w.remove(lock)
	return w.say(lock, "the operator deletes K")
}

func (w *world) overwritesKey() bool {
	if k := w.keys[lock]; k.create == 0 || k.by == 0 || !w.strike(byHand) {
		return false
	}
	w.touch()
	w.now++
	w.put(lock, 0)
	return w.say(lock, "the operator overwrites K")
}

func (w *world) putsKey() bool {
	if w.keys[lock].create != 0 || !w.strike(byHand) {
		return false
	}
	w.now++
	w.put(lock, 0)
	return w.say(lock, "the operator puts K")
}

// takesKeyBack: who has put K by hand deletes it in the end.
func (w *world) takesKeyBack() bool {
	if k := w.keys[lock]; k.create == 0 || k.by != 0 {
		return false
	}
	w.now++
	w.remove(lock)
	return w.say(lock, "the operator deletes the K that was put by hand")
}

// deletesPlace is force: the next one may be at work before this one is dead.
func (w *world) deletesPlace(x int) bool {
	if w.keys[x].create == 0 || !w.strike(force) {
		return false
	}
	w.set(x, touched|forced)
	w.now++
	w.remove(x)
	return w.say(x, "the operator deletes @'s place")
}

// deletesStray: nobody is at work there.
func (w *world) deletesStray() bool {
	if w.keys[stray].create == 0 || !w.strike(force) {
		return false
	}
	w.now++
	w.remove(stray)
	return w.say(stray, "the operator deletes @")
}

// revokesLease is force, too.
func (w *world) revokesLease(x int) bool {
	if w.who[x].phase.over() || w.is(x, gone) || !w.strike(force) {
		return false
	}
	for y := range w.who {
		if w.lease[y] == w.lease[x] && !w.is(y, gone) {
			w.set(y, touched|forced)
		}
	}
	w.endLease(x)
	return w.say(x, "the operator revokes @'s lease")
}
