package smalletcd

import (
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Grant creates a lease. It returns rpctypes.ErrLeaseExist if there is one with that id. The id
// must not be 0: a real etcd would choose one itself.
func (s *Store) Grant(id int64) error {
	if id == 0 {
		panic("smalletcd: a lease without an id")
	}
	i, found := slices.BinarySearch(s.leases, id)
	if found {
		return rpctypes.ErrLeaseExist
	}
	s.leases = slices.Insert(s.leases, i, id)
	return nil
}

// Revoke ends a lease. It deletes all keys under it in one revision, in the order of their names;
// without keys there is no new revision. It returns rpctypes.ErrLeaseNotFound if there is no such
// lease. A lease that expires is revoked by etcd itself, see [Store.Expire].
func (s *Store) Revoke(id int64) error {
	i, found := slices.BinarySearch(s.leases, id)
	if !found {
		return rpctypes.ErrLeaseNotFound
	}
	s.leases = slices.Delete(slices.Clone(s.leases), i, i+1)
	revision := s.revision + 1
	for i := 0; i < len(s.keys); {
		if s.keys[i].Lease != id {
			i++
			continue
		}
		s.remove(i, i+1, revision)
		s.revision = revision
	}
	return nil
}

// Expire is Revoke of a lease that may have ended already.
func (s *Store) Expire(id int64) { _ = s.Revoke(id) }

// HasLease reports whether there is a lease. If so, etcd confirms its renewal.
func (s *Store) HasLease(id int64) bool {
	_, found := slices.BinarySearch(s.leases, id)
	return found
}
