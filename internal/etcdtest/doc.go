// Package etcdtest gives tests a real etcd and the means to break it.
//
// Only test files import it: it links the etcd server into whatever does.
//
// # Which etcd
//
// [Start] runs one inside the test binary: the fastest and right for nearly everything. [Shared]
// keeps one such server for all tests of a package. [StartProcess] and [StartCluster] run members
// as processes of their own, which can be killed, stopped, restarted and wiped; they are the test
// binary executed again. The last three need a hook in TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }
//
// Raft ticks faster here than in etcd's default configuration, so that a server is up at once and
// the shortest lease it grants is 1 s instead of 2 s (etcd's minimum is 1.5 election timeouts,
// rounded up to whole seconds). [WithStockTicks] gives etcd's own timing. Nothing is synced to
// disk.
//
// # Which fault
//
// A [Link] breaks a TCP connection without understanding it: silent, refused, cut, slow. A [Gate]
// understands etcd's RPCs and loses a single request or a single answer, which is how the outcome
// of a write becomes unknown. A [Process] that is stopped keeps its connections open and answers
// nothing.
//
// # Waiting
//
// Nothing here waits by sleeping for a guessed time. What has to be awaited is awaited until the
// test's own deadline; see [Context] and [Await].
package etcdtest
