package kernel

const sysRecvmsg = 372 // package syscall knows only the older way
