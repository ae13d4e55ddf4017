package scopeward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const targetHint = "write it as HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:/PATH or dns:///NAME:PORT"

// endpoint is where the service is, checked.
type endpoint struct {
	// target is for gRPC where there is one; several are in addresses.
	target    string
	addresses []string
	isTLS     bool
	// isLocal is true for a loopback address or a Unix socket: nothing leaves the machine.
	isLocal bool
	isIP    bool
}

func parseTargets(texts []string) (endpoint, error) {
	if len(texts) == 0 {
		texts = []string{DefaultTarget}
	}
	first, err := parseTarget(texts[0])
	if err != nil || len(texts) == 1 {
		return first, err
	}
	all := endpoint{isTLS: first.isTLS, isLocal: true, isIP: true}
	for _, text := range texts {
		one, err := parseTarget(text)
		if err != nil {
			return endpoint{}, err
		}
		if one.isTLS != all.isTLS {
			return endpoint{}, errors.New("several targets are either all https:// or none")
		}
		if !one.isIP {
			return endpoint{}, errors.New(
				"several targets have to be IP addresses; for names use one dns:///NAME:PORT that has several addresses")
		}
		all.isLocal = all.isLocal && one.isLocal
		all.addresses = append(all.addresses, one.addresses...)
	}
	return all, nil
}

func parseTarget(text string) (endpoint, error) {
	if path, isUnix := strings.CutPrefix(text, "unix:"); isUnix {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return endpoint{}, fmt.Errorf("target `%s` has no path; %s", text, targetHint)
		}
		return endpoint{target: "unix:" + path, addresses: []string{path}, isLocal: true}, nil
	}
	whole := strings.TrimPrefix(text, "dns:///")
	if !strings.Contains(whole, "://") {
		whole = "http://" + whole
	}
	parsed, err := url.Parse(whole)
	if err != nil {
		return endpoint{}, fmt.Errorf("`%s` is not a target: %w; %s", text, err, targetHint)
	}
	host := parsed.Hostname()
	if (parsed.Scheme != "http" && parsed.Scheme != "https") || host == "" || parsed.User != nil {
		return endpoint{}, fmt.Errorf("`%s` is not a target; %s", text, targetHint)
	}
	port, err := strconv.ParseUint(parsed.Port(), 10, 16)
	hasMore := strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "" || parsed.Fragment != ""
	if err != nil || port == 0 || hasMore {
		return endpoint{}, fmt.Errorf("target `%s` needs a port and has no path; %s", text, targetHint)
	}
	joined := net.JoinHostPort(host, parsed.Port())
	found := endpoint{target: "dns:///" + joined, addresses: []string{joined}, isTLS: parsed.Scheme == "https"}
	if address, err := netip.ParseAddr(host); err == nil {
		found.isIP, found.isLocal = true, address.IsLoopback()
	} else {
		found.isLocal = host == "localhost"
	}
	return found, nil
}
