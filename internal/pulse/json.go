//go:build unix

package pulse

import (
	"bytes"
	"encoding/json"
)

// A message is what one line of a channel says, as far as it matters here: two members of an
// object. Of members with the same name the last one counts, as in JavaScript.
type message struct {
	pong []byte // a number, or the first byte of anything else; nil: it was absent
	cmd  []byte // a string, with its quotes; nil: it was absent
}

// A lineParser checks lines and reads messages from them. It keeps nothing of a line, so a line
// costs no memory beyond its own, however many values are in it and however deeply they are nested.
// Package encoding/json builds them up, or stops at a depth of 10,000, and tests hold this one
// against it.
type lineParser struct {
	b     []byte
	i     int
	stack []byte // the opening brackets around the place
}

// parse returns what a line says, and whether it is JSON.
func (p *lineParser) parse(line []byte) (m message, ok bool) {
	p.b, p.i, p.stack = line, 0, p.stack[:0]
	var name []byte // of the member of the outermost object that comes
	for {
		begin, more, ok := p.value()
		if !ok {
			return message{}, false
		}
		if name != nil {
			m.note(name, p.b[begin:p.i])
			name = nil
		}
		for !more {
			// A value has ended; so may what it is in.
			if len(p.stack) == 0 {
				p.blanks()
				return m, p.i == len(p.b)
			}
			p.blanks()
			switch c := p.next(); {
			case c == ',':
				more = true
			case c == ']' && p.inside('['), c == '}' && p.inside('{'):
				p.stack = p.stack[:len(p.stack)-1]
			default:
				return message{}, false
			}
		}
		if p.inside('{') {
			read, ok := p.name()
			if !ok {
				return message{}, false
			}
			if len(p.stack) == 1 {
				name = read
			}
		}
	}
}

// note takes a member.
func (m *message) note(name, value []byte) {
	if bytes.IndexByte(name, '\\') >= 0 && len(name) < 32 {
		var plain string
		if json.Unmarshal(name, &plain) == nil {
			name = []byte(`"` + plain + `"`)
		}
	}
	switch string(name) {
	case `"pong"`:
		m.pong = value
	case `"cmd"`:
		m.cmd = value
	}
}

// value reads a value, or the beginning of one that has others in it: then more is true.
func (p *lineParser) value() (begin int, more, ok bool) {
	p.blanks()
	begin = p.i
	switch c := p.next(); {
	case c == '{' || c == '[':
		p.blanks()
		if p.i < len(p.b) && p.b[p.i] == c+2 { // the closing one
			p.i++
			return begin, false, true
		}
		p.stack = append(p.stack, c)
		return begin, true, true
	case c == '"':
		return begin, false, p.string()
	case c == '-' || isDigit(c):
		p.i--
		return begin, false, p.number()
	case c == 't':
		return begin, false, p.rest("rue")
	case c == 'f':
		return begin, false, p.rest("alse")
	case c == 'n':
		return begin, false, p.rest("ull")
	}
	return begin, false, false
}

// name reads a member's name and the colon.
func (p *lineParser) name() (name []byte, ok bool) {
	p.blanks()
	begin := p.i
	if p.next() != '"' || !p.string() {
		return nil, false
	}
	name = p.b[begin:p.i]
	p.blanks()
	return name, p.next() == ':'
}

// string reads what follows the opening quote.
func (p *lineParser) string() bool {
	for {
		switch c := p.next(); {
		case c == '"':
			return true
		case c < ' ':
			return false // also the end
		case c == '\\':
			if !p.escaped() {
				return false
			}
		}
	}
}

func (p *lineParser) escaped() bool {
	c := p.next()
	if c != 'u' {
		return c != 0 && bytes.IndexByte([]byte(`"\/bfnrt`), c) >= 0
	}
	for range 4 {
		c := p.next()
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func (p *lineParser) number() bool {
	p.skip('-')
	if !p.skip('0') && !p.digits() {
		return false
	}
	if p.skip('.') && !p.digits() {
		return false
	}
	if p.skip('e') || p.skip('E') {
		if !p.skip('+') {
			p.skip('-')
		}
		return p.digits()
	}
	return true
}

// digits reads one digit or more.
func (p *lineParser) digits() bool {
	begin := p.i
	for p.i < len(p.b) && isDigit(p.b[p.i]) {
		p.i++
	}
	return p.i > begin
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (p *lineParser) rest(word string) bool {
	for i := range len(word) {
		if p.next() != word[i] {
			return false
		}
	}
	return true
}

// next returns the next byte; 0, which can stand nowhere, at the end.
func (p *lineParser) next() byte {
	if p.i >= len(p.b) {
		return 0
	}
	p.i++
	return p.b[p.i-1]
}

// skip passes c by if it is there.
func (p *lineParser) skip(c byte) bool {
	is := p.i < len(p.b) && p.b[p.i] == c
	if is {
		p.i++
	}
	return is
}

func (p *lineParser) blanks() {
	for p.skip(' ') || p.skip('\t') || p.skip('\r') || p.skip('\n') {
	}
}

func (p *lineParser) inside(bracket byte) bool {
	return len(p.stack) > 0 && p.stack[len(p.stack)-1] == bracket
}
