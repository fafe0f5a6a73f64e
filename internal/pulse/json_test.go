//go:build unix

package pulse

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

var lines = []string{
	`{"pong":5}`, ` { "pong" : -0.5e+3 , "x":[1,{"pong":2},"a\"\\é"] } `, `{"pong":1,"pong":"2"}`, `{"PONG":1}`, `{"p\u006fng":7}`,
	`{"pong":{"pong":1}}`, `{"x":{"pong":1}}`, `[{"pong":1}]`, `{"pong":[]}`, `{"pong":null}`, `{"cmd":"NODE_HANDLE","type":"net.Socket"}`,
	`null`, `true`, `"text"`, `5`, `[]`, `{}`, `[[[]]]`, `[1,[2,{"a":[]}],3]`,
	``, ` `, `{`, `}`, `[1,]`, `{"a":1,}`, `{"a"}`, `{a:1}`, `01`, `1.`, `.5`, `1e`, `-`, `+1`, `nul`, `truee`, `"a`, "\"\x01\"", `"\x"`, `"\u12g4"`, `{} {}`, `[1}`, `{"a":1]`, "\x00", "\"\x00\"", "{\"\x00\":1}",
	`NaN`, `Infinity`, "\ufeff{}", "\"\xff\"", "{\"\xff\":1,\"pong\":1}",
}

// FuzzLine holds the parser against encoding/json.
func FuzzLine(f *testing.F) {
	for _, line := range lines {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) > maxLine {
			return
		}
		m, ok := new(lineParser).parse(line)
		if depth(line) > 9000 {
			return // encoding/json goes no deeper than 10,000
		}
		if ok != json.Valid(line) {
			t.Fatalf("valid: %v", ok)
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(line, &want) != nil {
			return
		}
		// Of a value that has others in it the beginning is enough.
		if pong := want["pong"]; (pong == nil) != (m.pong == nil) || !bytes.HasPrefix(pong, m.pong) && !bytes.HasPrefix(m.pong, pong[:min(1, len(pong))]) {
			t.Errorf("pong %q, want %q", m.pong, pong)
		} else if pong != nil && pong[0] != '{' && pong[0] != '[' && !bytes.Equal(pong, m.pong) {
			t.Errorf("pong %q, want %q", m.pong, pong)
		}
		if cmd := want["cmd"]; (cmd == nil) != (m.cmd == nil) {
			t.Errorf("cmd %q, want %q", m.cmd, cmd)
		}
	})
}

// depth returns a bound of how deeply values are nested.
func depth(line []byte) int { return bytes.Count(line, []byte("[")) + bytes.Count(line, []byte("{")) }

// FuzzLines: lines are the same however they come, and each is read or refused.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"pong\":1}\n{\"pong\":2}\nnull\n\nx\n"), uint8(3))
	f.Add([]byte("{\"pong\":\"\xff\n\"}\n"), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		read := func(size int) (got []string) {
			r := lineReader{
				each:  func(line []byte, m message) { got = append(got, string(line)+"|"+string(m.pong)+"|"+string(m.cmd)) },
				wrong: func(err error) { got = append(got, err.Error()) },
			}
			for chunk := range slices.Chunk(text, size) {
				r.write(chunk)
			}
			return got
		}
		whole, parts := read(len(text)+1), read(int(size)+1)
		if !slices.Equal(whole, parts) {
			t.Errorf("at once %q; in parts %q", whole, parts)
		}
		if n := bytes.Count(text, []byte("\n")); len(whole) != n {
			t.Errorf("%d lines, %d of them heard", n, len(whole))
		}
	})
}

// TestDepth: a message may be nested as deeply as a line is long, and is read all the same.
func TestDepth(t *testing.T) {
	const n = maxLine/2 - 10
	deep := `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `,"pong":7}`
	if m, ok := new(lineParser).parse([]byte(deep)); !ok || string(m.pong) != "7" {
		t.Errorf("%q, %v", m.pong, ok)
	}
	if _, ok := new(lineParser).parse([]byte(deep[:len(deep)-20])); ok {
		t.Error("half of it was read")
	}
}

// TestTooLongALine: it is said once, and the next line is read.
func TestTooLongALine(t *testing.T) {
	for extra, want := range []int{0, 1, 2} {
		var wrong []string
		read := 0
		r := lineReader{each: func([]byte, message) { read++ }, wrong: func(err error) { wrong = append(wrong, err.Error()) }}
		line := `"` + strings.Repeat("x", maxLine-2+extra) + `"`
		for part := range slices.Chunk([]byte(line+"\nnull\n"), 1000) {
			r.write(part)
		}
		if len(wrong) != min(want, 1) || read != 2-min(want, 1) {
			t.Errorf("%d bytes: %d read, %q", len(line), read, wrong)
		}
		if len(wrong) > 0 && (len(wrong[0]) > 300 || !strings.Contains(wrong[0], "1048576 bytes")) {
			t.Errorf("it says %q", wrong[0])
		}
	}
}

func TestIsNumber(t *testing.T) {
	for text, want := range map[string]bool{
		"5": true, "5.0": true, "5e0": true, "0.5E+1": true, "50e-1": true, "-5": false, `"5"`: false, "null": false, "true": false, "[5]": false, "{": false, "5.1": false, "1e999": false, "inf": false,
	} {
		if isNumber([]byte(text), 5) != want {
			t.Errorf("%s: want %v", text, want)
		}
	}
	if isNumber([]byte("9007199254740990"), maxNumber) || !isNumber([]byte("9007199254740991"), maxNumber) {
		t.Error("the largest numbers are not told apart")
	}
}
