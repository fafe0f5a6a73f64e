// Package plain makes text of others, or of users, fit to be shown on a terminal.
package plain

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
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

// What gRPC writes around the reason of an error.
var (
	ofStatus     = regexp.MustCompile(`rpc error: code = \w+ desc = `)
	ofConnection = regexp.MustCompile(`(?:(?:last connection|latest balancer) error: )?connection error: desc = ("(?:[^"\\]|\\.)*")`)
	ofTransport  = regexp.MustCompile(`^transport: (?:Error while dialing: )?`)
)

// Reason returns the text of an error without what gRPC writes around its own.
func Reason(s string) string {
	s = ofStatus.ReplaceAllLiteralString(s, "")
	return ofConnection.ReplaceAllStringFunc(s, func(whole string) string {
		reason, err := strconv.Unquote(ofConnection.FindStringSubmatch(whole)[1])
		if err != nil {
			return whole
		}
		return ofTransport.ReplaceAllLiteralString(reason, "")
	})
}

// Shell returns a key, or another word, as it is typed in a shell. What controls and formats on a
// terminal is escaped in a way that bash, zsh and ksh understand.
func Shell(s string) string {
	switch {
	case s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isTypedPlain(r) }):
		return s
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }):
		var b strings.Builder
		for _, c := range []byte(s) {
			if c < ' ' || c > '~' || c == '\'' || c == '\\' {
				fmt.Fprintf(&b, `\%03o`, c)
			} else {
				b.WriteByte(c)
			}
		}
		return "$'" + b.String() + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Operand is Shell for the last word of a command, which is not to be taken for an option.
func Operand(s string) string {
	if strings.HasPrefix(s, "-") {
		return "-- " + Shell(s)
	}
	return Shell(s)
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
