package kernel

// A Sender is who has sent a signal. Package os/signal does not tell that.
type Sender struct {
	Kernel bool // not a process: the signal was typed on a terminal, for example
	PID    int  // of the process; 0: it is in another pid namespace, or not known
}
