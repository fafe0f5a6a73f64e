//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// work counts: it reads the counter and then writes a number that is greater by one, again and
// again, on the authority of the fencing token. Two that did so at once would lose some of their
// work.
func work(ledger, name, token string) {
	conn, err := net.Dial("unix", ledger)
	if err != nil {
		return // nobody keeps one
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	ask := func(format string, args ...any) (string, error) {
		if _, err := fmt.Fprintf(conn, format+"\n", args...); err != nil {
			return "", err
		}
		line, err := answers.ReadString('\n')
		return strings.TrimSpace(line), err
	}
	for {
		answer, err := ask("get %s %s", name, token)
		if err != nil {
			return
		}
		if n, err := strconv.Atoi(answer); err == nil {
			time.Sleep(5 * time.Millisecond)
			if answer, err := ask("set %d", n+1); err != nil || answer == "unknown" {
				return // that number may still be written, and would be counted twice
			}
		}
		time.Sleep(60 * time.Millisecond)
	}
}
