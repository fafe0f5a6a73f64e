package wire

import (
	"regexp"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// slotName matches the name of a slot.
var slotName = regexp.MustCompile(`^=[0-9]+#[0-9]+$`)

// LockOf returns the lock that a key is about, by its name: as a place in line, or as a slot. Names
// of digits can be those of other keys as well: then lease is the one that the key has if it is a
// place. For all other places it is 0.
func LockOf(key string) (lock string, lease int64, ok bool) {
	i := strings.LastIndexByte(key, '/')
	if i <= 0 {
		return "", 0, false
	}
	lock, name := key[:i], key[i+1:]
	switch {
	case !placeName.MatchString(name):
		return lock, 0, slotName.MatchString(name)
	case strings.HasPrefix(name, linked), strings.HasPrefix(name, sized):
		return lock, 0, true
	}
	end := len(name)
	if dash := strings.LastIndexByte(name, '-'); dash > 0 {
		end = dash
	}
	lease, err := strconv.ParseInt(name[:end], 16, 64)
	return lock, lease, err == nil && lease != 0
}

// MutexPlace returns the key that an etcd Mutex puts in line for a lock, with a lease.
func MutexPlace(lock string, lease clientv3.LeaseID) string {
	return Prefix(lock) + strconv.FormatInt(int64(lease), 16)
}

// IsMutex reports whether a place is that of an etcd Mutex, of etcdctl lock, or of etcd's own lock
// service.
func IsMutex(lock string, place *mvccpb.KeyValue) bool {
	_, ours := PlaceOf(lock, place)
	return !ours && IsPlace(lock, place)
}
