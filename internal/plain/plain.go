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

// Shell returns a key, or another word, as it is typed in a shell.
func Shell(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isTypedPlain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func isTypedPlain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+:,@%", r)
}

// Word returns a key, an id or a path as it is if it is plain, else quoted.
func Word(s string) string {
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` || s == "" || strings.ContainsRune(s, ' ') {
		return quoted
	}
	return s
}
