// Package endpoint says where etcd is and how to reach it: endpoints, TLS and users, from flags and
// environment. What etcdctl's variables do for etcdctl they do here.
package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// defaultPort is the one that etcd listens on for clients.
const defaultPort = "2379"

// maxSocketPath is the longest path that a unix socket can have on every system that we build for,
// less its final NUL.
const maxSocketPath = 103

// Parse reads a comma-separated list of endpoints: host, host:port, http(s)://host:port or
// unix:///path. A host may be an IPv6 address with a zone, fe80::1%eth0; in a URL its % may also be
// written %25. What has a meaning of its own in a list or a URL is escaped in a path, %2C for a
// comma. It returns URLs with the port filled in; a host without a scheme is reached by https if
// secure is set, else by http. All endpoints of a list must be of one kind, as one client has one
// transport.
func Parse(list string, secure bool) ([]string, error) {
	var endpoints []string
	var schemes []string
	for _, item := range strings.Split(list, ",") {
		item = strings.Trim(item, " ")
		if item == "" {
			continue
		}
		endpoint, err := parseOne(item, secure)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, endpoint)
		scheme, _, _ := strings.Cut(endpoint, ":")
		schemes = append(schemes, scheme)
		if schemes[0] != scheme {
			return nil, fmt.Errorf("the list mixes %s and %s", schemes[0], scheme)
		}
	}
	if len(endpoints) == 0 {
		return nil, errors.New("the list is empty")
	}
	return endpoints, nil
}

func parseOne(item string, secure bool) (string, error) {
	if strings.ContainsFunc(item, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		return "", fmt.Errorf("endpoint %q has blanks or control characters in it", item)
	}
	scheme, rest, ok := strings.Cut(item, "://")
	switch {
	case !ok && secure:
		return hostPort("https", zoneAsWritten(item), item)
	case !ok:
		return hostPort("http", zoneAsWritten(item), item)
	case scheme == "unix" || scheme == "unixs":
		return socketURL(item, rest)
	case scheme == "http" || scheme == "https":
		return parseURL(item)
	}
	return "", fmt.Errorf("endpoint %q is not http, https or unix", item)
}

// The zone of an IPv6 address follows a %, which is %25 in a URL.
const zoneSign, zoneSignInURL = "%", "%25"

// zoneAsWritten returns a host, with or without a port, in which a zone does not stand as in a URL.
func zoneAsWritten(host string) string { return strings.Replace(host, zoneSignInURL, zoneSign, 1) }

// zoneAsInURL is the reverse.
func zoneAsInURL(host string) string {
	return strings.Replace(zoneAsWritten(host), zoneSign, zoneSignInURL, 1)
}

// socketURL checks the URL of a socket, whose path etcd's client takes out of it.
func socketURL(item, rest string) (string, error) {
	u, err := url.Parse(item)
	switch {
	case err != nil:
		return "", fmt.Errorf("endpoint %q is not a valid URL: %w", item, errors.Unwrap(err))
	case !strings.HasPrefix(rest, "/") || u.Path == "/":
		return "", fmt.Errorf("endpoint %q names no absolute path", item)
	case strings.ContainsAny(item, "?#"):
		return "", fmt.Errorf("endpoint %q has more in it than a path: %%3F stands for ? and %%23 for #", item)
	case len(u.Path) > maxSocketPath:
		return "", fmt.Errorf("the socket's path in %q has %d bytes, %d are the most", item, len(u.Path), maxSocketPath)
	}
	return item, nil
}

func parseURL(item string) (string, error) {
	u, err := url.Parse(zoneAsInURL(item))
	switch {
	case err != nil && strings.Contains(item, "@"), err == nil && u.User != nil:
		return "", errors.New("an endpoint has credentials in it")
	case err != nil:
		return "", fmt.Errorf("endpoint %q is not a valid URL: %w", item, errors.Unwrap(err))
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(item, "?#"):
		return "", fmt.Errorf("endpoint %q has more in it than host and port", item)
	}
	return hostPort(u.Scheme, u.Host, item)
}

// hostPort fills in the port and checks both.
func hostPort(scheme, authority, item string) (string, error) {
	if strings.Contains(authority, "@") {
		return "", errors.New("an endpoint has credentials in it")
	}
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		// Without a port, or an IPv6 address without brackets.
		host, port = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]"), defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("endpoint %q: %q is not a valid port", item, port)
	}
	if !validHost(host) {
		return "", fmt.Errorf("endpoint %q: %q is not a valid host", item, host)
	}
	endpoint := scheme + "://" + net.JoinHostPort(zoneAsInURL(host), port)
	if _, err := url.Parse(endpoint); err != nil {
		return "", fmt.Errorf("endpoint %q is not a valid address: %w", item, errors.Unwrap(err))
	}
	return endpoint, nil
}

func validHost(host string) bool {
	if !strings.Contains(host, ":") {
		return host != "" && !strings.ContainsAny(host, "/?#[]@%\\\"<>^`{|}!$&'()*+;=,~")
	}
	address, err := netip.ParseAddr(host)
	// In a URL, other characters of a zone would have to be escaped.
	return err == nil && !strings.ContainsFunc(address.Zone(), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
	})
}
