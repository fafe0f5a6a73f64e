//go:build !386

package kernel

import "syscall"

const (
	sysRecvmsg = syscall.SYS_RECVMSG
	sysSendmsg = syscall.SYS_SENDMSG
)
