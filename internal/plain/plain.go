// Package plain makes text of others, or of users, fit to be shown on a terminal.
package plain

import (
	"strconv"
	"strings"
)

// Line keeps a message on its line, whatever is quoted in it, and off the terminal what would
// change that or the order of its text: characters that control and format.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}

// Word returns a key, an id or a path as it is if it is plain, else quoted.
func Word(s string) string {
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` || s == "" || strings.ContainsRune(s, ' ') {
		return quoted
	}
	return s
}
