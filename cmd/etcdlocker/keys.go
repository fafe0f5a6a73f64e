package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/etcdlock/etcdlock"
)

// keys are those of all locks that are to be held, sorted.
type keys []string

// mostNamed is how many keys, or ids, a message names.
const mostNamed = 3

// locks names the locks for a message: lock "/a", or locks "/a" and "/b".
func (k keys) locks() string {
	named, more := firstOf(k)
	if more == "" && len(named) > 1 {
		last := len(named) - 1
		named, more = named[:last], " and "+named[last]
	}
	return k.form("lock ", "locks ") + strings.Join(named, ", ") + more
}

// firstOf quotes some of a list for a message, and says how many more there are.
func firstOf(all []string) (quoted []string, more string) {
	for _, one := range all[:min(len(all), mostNamed)] {
		quoted = append(quoted, strconv.Quote(one))
	}
	if n := len(all) - mostNamed; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return quoted, more
}

// form returns the words of a message that fit one lock, or those that fit several.
func (k keys) form(one, several string) string {
	if len(k) == 1 {
		return one
	}
	return several
}

// released says that the locks are released.
func (k keys) released() string { return k.locks() + k.form(" is", " are") + " released" }

// freeThemselves says that locks that are not released go with their lease.
func (k keys) freeThemselves() string { return k.form("it frees itself", "they free themselves") }

// A heldLock is one of the locks in the list that the command finds in its environment.
type heldLock struct {
	Key       string `json:"key,omitempty"`
	KeyBase64 []byte `json:"key_base64,omitempty"` // instead, where the key is not UTF-8
	Token     int64  `json:"token"`
	Mode      string `json:"mode"`
	Slot      *int   `json:"slot,omitempty"` // of a semaphore
}

func newHeldLock(key string, token int64, mode etcdlock.Mode, slot int) heldLock {
	one := heldLock{Key: key, Token: token, Mode: mode.Name()}
	if !utf8.ValidString(key) {
		one.Key, one.KeyBase64 = "", []byte(key)
	}
	if mode > 0 {
		one.Slot = &slot
	}
	return one
}

// list returns the list of the locks.
func (k keys) list(of func(key string) heldLock) string {
	var locks []heldLock
	for _, key := range k {
		locks = append(locks, of(key))
	}
	var list bytes.Buffer
	encoder := json.NewEncoder(&list)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(locks); err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return strings.TrimSpace(list.String())
}

// lists reports whether such a list has a lock with a token; 0 is that of one that is shared.
func lists(list, key string, token int64) bool {
	return slices.ContainsFunc(parseList(list), func(l heldLock) bool {
		isIt := l.Token == token || token == 0 && l.Mode == etcdlock.Shared.String()
		return isIt && l.key() == key
	})
}

// parseList returns the locks of such a list, none if it is something else.
func parseList(list string) (locks []heldLock) {
	if json.Unmarshal([]byte(list), &locks) != nil {
		return nil
	}
	return locks
}

// key returns the lock's key.
func (l heldLock) key() string {
	if l.Key == "" {
		return string(l.KeyBase64)
	}
	return l.Key
}
