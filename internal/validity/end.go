package validity

import "github.com/etcdlock/etcdlock/internal/boottime"

// End returns the instant at which the validity of an *etcdlock.Lock ends if no further renewal
// succeeds; the zero Instant if it is not held, or may be somebody else's. Package etcdlock sets it.
var End func(lock any) boottime.Instant
