package retry

import (
	"sync"
	"time"
)

// Late makes a request, and tells if it takes longer than a time, once. Tell has returned when Late
// does.
func Late(than time.Duration, tell func(), request func() error) error {
	answered := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		late := time.NewTimer(than)
		defer late.Stop()
		select {
		case <-late.C:
			tell()
		case <-answered:
		}
	})
	err := request()
	close(answered)
	telling.Wait()
	return err
}
