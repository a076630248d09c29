package osnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// This file holds what is known about the command-line tools of macOS: pure functions, so that they are tested on
// every system.

// command returns the command line that does s on the interface called name.
func command(name string, s step) []string {
	p := s.prefix
	family := "inet"
	if is6(p) {
		family = "inet6"
	}
	switch s.verb {
	case setMTU:
		return []string{"/sbin/ifconfig", name, "mtu", strconv.Itoa(s.mtu)}
	case bringUp:
		return []string{"/sbin/ifconfig", name, "up"}
	case bringDown:
		return []string{"/sbin/ifconfig", name, "down"}
	case addAddr:
		if is6(p) {
			return []string{"/sbin/ifconfig", name, family, p.String(), "alias"}
		}
		// A point-to-point interface wants the address of its other end too; its own does.
		return []string{"/sbin/ifconfig", name, family, p.String(), p.Addr().String(), "alias"}
	case removeAddr:
		return []string{"/sbin/ifconfig", name, family, p.Addr().String(), "-alias"}
	case addRoute:
		return []string{"/sbin/route", "-q", "-n", "add", "-" + family, p.String(), "-interface", name}
	case removeRoute:
		return []string{"/sbin/route", "-q", "-n", "delete", "-" + family, p.String(), "-interface", name}
	}
	panic("internal error: no command for " + s.String())
}

// outcome turns what a tool printed, and how it ended, into an error. route(8) reports some failures in its text
// only, with exit status 0.
func outcome(argv []string, text string, err error) error {
	text = strings.Join(strings.Fields(text), " ")
	switch {
	case strings.Contains(text, "File exists"):
		err = os.ErrExist
	case strings.Contains(text, "not in table"), strings.Contains(text, "does not exist"):
		err = os.ErrNotExist
	case strings.Contains(text, "must be root"), strings.Contains(text, "ermission denied"), strings.Contains(text, "not permitted"):
		err = os.ErrPermission
	case err == nil && strings.Contains(text, "writing to routing socket"):
		err = errors.New("refused")
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w (%s)", strings.Join(argv, " "), err, text)
}

// parseIfconfig reads what `ifconfig NAME` prints for one interface. Link-local addresses are left out.
func parseIfconfig(text string) (state, error) {
	have := state{ipv6: true}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case strings.HasPrefix(f[1], "flags="):
			_, flags, _ := strings.Cut(f[1], "<")
			flags, _, _ = strings.Cut(flags, ">")
			have.up = strings.Contains(","+flags+",", ",UP,")
			have.mtu = fieldAfter(f, "mtu", 10)
		case f[0] == "inet":
			mask := uint32(fieldAfter(f, "netmask", 0))
			a, err := netip.ParseAddr(f[1])
			if err != nil {
				return state{}, fmt.Errorf("read ifconfig: %w", err)
			}
			have.addrs = append(have.addrs, netip.PrefixFrom(a, leadingOnes(mask)))
		case f[0] == "inet6":
			a, err := netip.ParseAddr(f[1])
			if err != nil {
				return state{}, fmt.Errorf("read ifconfig: %w", err)
			}
			if !a.IsLinkLocalUnicast() {
				have.addrs = append(have.addrs, netip.PrefixFrom(a.WithZone(""), fieldAfter(f, "prefixlen", 10)))
			}
		}
	}
	if have.mtu == 0 {
		return state{}, errors.New("read ifconfig: no interface in its output")
	}
	return have, nil
}

// fieldAfter returns the number that follows the word key, 0 when there is none.
func fieldAfter(fields []string, key string, base int) int {
	for i, f := range fields[:len(fields)-1] {
		if f == key {
			n, err := strconv.ParseUint(fields[i+1], base, 32)
			if err != nil {
				return 0
			}
			return int(n)
		}
	}
	return 0
}

// leadingOnes is the length of a netmask.
func leadingOnes(mask uint32) (n int) {
	for ; mask&(1<<31) != 0; mask <<= 1 {
		n++
	}
	return n
}

// tableRoute is one line of netstat's routing table.
type tableRoute struct {
	dst    netip.Prefix
	flags  string // see netstat(1)
	ifname string
}

// static reports whether somebody has set the route by hand, rather than the kernel with an address.
func (r tableRoute) static() bool { return strings.Contains(r.flags, "S") && !r.learned() }

// learned reports whether the line is a neighbour or a clone, not a route.
func (r tableRoute) learned() bool { return strings.ContainsAny(r.flags, "LW") }

// parseNetstat reads what `netstat -rn -f FAMILY` prints. Lines that are not routes to a prefix, and
// default routes, are left out.
func parseNetstat(text string) (list []tableRoute) {
	column := 0 // of Netif, which older systems have further right
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 3 && f[0] == "Destination" {
			for i, word := range f {
				if word == "Netif" {
					column = i
				}
			}
			continue
		}
		const flags = 2
		if column <= flags || len(f) <= column {
			continue
		}
		if dst, ok := parseDestination(f[0]); ok {
			list = append(list, tableRoute{dst: dst, flags: f[flags], ifname: f[column]})
		}
	}
	return list
}

// parseDestination reads netstat's abbreviated prefixes: 10, 192.168.1, 100.70/16, 10.1.2.3, fd00::/48, fe80::%lo0/64.
func parseDestination(text string) (netip.Prefix, bool) {
	addr, length, hasLength := strings.Cut(text, "/")
	addr, _, _ = strings.Cut(addr, "%")
	bits := -1
	if strings.Contains(addr, ":") {
		bits = 128
	} else if octets := strings.Count(addr, ".") + 1; octets <= 4 {
		bits = 8 * octets
		addr += strings.Repeat(".0", 4-octets)
	}
	if hasLength {
		n, err := strconv.Atoi(length)
		if err != nil {
			return netip.Prefix{}, false
		}
		bits = n
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}, false
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// checkUtun accepts utun (the kernel picks the number) and utunN.
func checkUtun(name string) error {
	rest, ok := strings.CutPrefix(name, "utun")
	if !ok {
		return fmt.Errorf("interface name %q: macOS wants utun, or utun and a number", name)
	}
	if _, err := strconv.ParseUint(rest, 10, 16); rest != "" && err != nil {
		return fmt.Errorf("interface name %q: macOS wants utun, or utun and a number", name)
	}
	return nil
}
