// Command bench measures etcdlock and its peers in turn, in one run, on one etcd.
package main

func main() {}
