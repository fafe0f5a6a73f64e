package early

import (
	"unsafe"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// heapAtStart is about what etcdlocker has allocated when a short command has ended.
const heapAtStart = 2 << 20

// populateHeap has the kernel provide the pages of the heap that will be used anyway, all at once: to do so one by one, as
// each is first touched, was a tenth of the work of running a short command, much more than that in some virtual machines.
// Where Go's heap is not where it is looked for, or with a kernel before 5.14, that does nothing.
func populateHeap() {
	const chunk = 64 << 10
	somewhere = new([64]byte)
	begin := uintptr(unsafe.Pointer(somewhere)) &^ (chunk - 1)
	kernel.Populate(begin, heapAtStart)
}

// somewhere in the heap.
var somewhere *[64]byte
