// Package duration reads the lengths of time that users write.
package duration

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Max is the longest one. It keeps sums of several from overflowing.
const Max = 100 * 365 * 24 * time.Hour

// Hint says how to write one, and WholeHint one of whole seconds.
const (
	Hint      = "a number counts seconds, as in 90 or 0.5; or add a unit, as in 500ms, 90s, 5m, 2h"
	WholeHint = "a number counts seconds, as in 90; or add a unit, as in 90s, 5m, 2h"
)

// Errors of Parse. They complete a sentence that begins with the text and "is".
var (
	errNoTime   = errors.New("not a time")
	errTooLong  = errors.New("too long")
	errNegative = errors.New("negative")
)

// Parse reads a number of seconds, fractions allowed, or one of Go's durations. It returns an error
// for a negative one, and for one that is longer than Max.
func Parse(text string) (d time.Duration, err error) {
	// ParseFloat alone would take 0x1p4, inf and 1_000 as well.
	if strings.Trim(text, "0123456789.+-") == "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, errNoTime
		}
		if seconds > Max.Seconds() {
			return 0, errTooLong
		}
		d = time.Duration(seconds * float64(time.Second))
	} else if d, err = time.ParseDuration(text); err != nil {
		return 0, errNoTime
	}
	switch {
	case d < 0 || strings.HasPrefix(text, "-"):
		return 0, errNegative
	case d > Max:
		return 0, errTooLong
	}
	return d, nil
}
