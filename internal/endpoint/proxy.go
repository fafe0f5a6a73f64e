package endpoint

import (
	"cmp"
	"net/http"
	"net/url"
	"os"
)

// Proxy names the proxy by which endpoints are reached, and the variable that says so; empty
// without one. It does not show who logs in at the proxy. gRPC decides by the first of the
// endpoints whether proxies are used, and asks each of them with CONNECT.
func Proxy(endpoints []string) string {
	first, err := url.Parse(endpoints[0])
	if err != nil || first.Host == "" {
		return "" // a socket
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: first.Host}})
	if err != nil || proxy == nil {
		return ""
	}
	const variable = "HTTPS_PROXY"
	name := variable
	if os.Getenv(variable) == "" {
		name = "https_proxy"
	}
	return cmp.Or(proxy.Scheme, "http") + "://" + proxy.Host + " (" + name + ")"
}
