package early

import (
	"unsafe"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

const (
	// heapAtStart is about what etcdlocker has allocated when a short command has ended.
	heapAtStart = 2 << 20

	// hugePage is what one has, and half of the memory that Go's heap grows by.
	hugePage = 2 << 20
)

// populateHeap has the kernel provide the pages of the heap that will be used anyway, all at once:
// to do so one by one, as each is first touched, was a tenth of the work of running a short
// command, much more than that in some virtual machines. One huge page in their place is cheaper
// still, also at the end; with a kernel before 6.1, or without a free one, it is the pages.
// Go's heap begins somewhere within the first huge page of its memory, or within the second: it is
// the one taken of which more will be used. Where Go's heap is not where it is looked for, or with
// a kernel before 5.14, that does nothing.
func populateHeap() {
	const chunk = 64 << 10
	somewhere = new([64]byte)
	begin := uintptr(unsafe.Pointer(somewhere)) &^ (chunk - 1)
	page := begin &^ (hugePage - 1)
	next := page + hugePage
	switch {
	case next-begin > hugePage/2:
		if kernel.Collapse(page, hugePage) == nil {
			return
		}
	case page&hugePage != 0: // what comes next may not be the heap's
		kernel.Populate(begin, next-begin)
		return
	default:
		if kernel.Collapse(next, hugePage) == nil {
			kernel.Populate(begin, next-begin)
			return
		}
	}
	kernel.Populate(begin, heapAtStart)
}

// somewhere in the heap.
var somewhere *[64]byte
