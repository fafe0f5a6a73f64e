// Package kernel makes the system calls of Linux that package syscall lacks, for those who cannot
// wait for x/sys.
//
// A guard enters its work while the packages of etcdlocker are being initialised, as soon as those
// are ready that it needs itself. The tables of package unicode come late in that order, and with
// them everything that imports strings, bytes, fmt or x/sys: about a quarter of the whole cost of a
// guard. So nothing here, nor in what imports it, needs any of them.
//
// Readable and AwaitChild wait, and so does Receive without MSG_DONTWAIT. The other calls wait for
// nothing but memory. They are made without telling Go's scheduler, which would wake up a thread to
// look after them.
package kernel
