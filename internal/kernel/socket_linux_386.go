package kernel

// Package syscall knows only the older way.
const (
	sysRecvmsg = 372
	sysSendmsg = 370
)
