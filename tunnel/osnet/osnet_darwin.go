package osnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

// DefaultName is the interface name used when the configuration has none: the kernel picks the number.
const DefaultName = "utun"

// toolTimeout bounds one run of ifconfig, route or netstat, which take milliseconds.
const toolTimeout = 10 * time.Second

// toolLink is an interface seen through ifconfig, route and netstat.
type toolLink struct{ name string }

// Open returns the Link of the interface called ifname, whose present addresses and routes count as ours from then on.
// The error wraps os.ErrNotExist when there is none. The file of the device is not needed.
func Open(ifname string, _ *os.File) (Link, error) { return newLink(ifname, &toolLink{name: ifname}) }

// Claim reports whether a utun device called name can be made. The kernel removes them with their process, so
// nothing can be left to take over.
func Claim(name string) error { return checkUtun(name) }

func (t *toolLink) close() error { return nil }

// read implements system.
func (t *toolLink) read() (state, error) {
	text, err := run([]string{"/sbin/ifconfig", t.name})
	if err != nil {
		return state{}, err
	}
	have, err := parseIfconfig(text)
	if err != nil {
		return state{}, err
	}
	routes, err := netstat()
	if err != nil {
		return state{}, err
	}
	for _, r := range routes {
		if r.ifname == t.name && r.static() {
			have.routes = append(have.routes, r.dst)
		}
	}
	return have, nil
}

// apply implements system.
func (t *toolLink) apply(s step) error {
	_, err := run(command(t.name, s))
	if s.verb == removeRoute && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// run runs a tool of the system and returns what it printed.
func run(argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	text, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	return string(text), outcome(argv, string(text), err)
}

// netstat lists the routes of both families.
func netstat() ([]tableRoute, error) {
	var list []tableRoute
	for _, family := range []string{"inet", "inet6"} {
		text, err := run([]string{"/usr/sbin/netstat", "-rn", "-f", family})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		list = append(list, parseNetstat(text)...)
	}
	return list, nil
}

// watch implements system: nothing tells of one interface here, and whoever asks looks from time to time.
func (t *toolLink) watch(context.Context) (<-chan struct{}, error) { return nil, nil }

func (t *toolLink) elsewhere(within []netip.Prefix) ([]Route, error) {
	i, err := net.InterfaceByName(t.name)
	if err != nil {
		return nil, fmt.Errorf("list local routes: %w", err)
	}
	return tidied(i.Index, within)
}

func routes(except int, _ []netip.Prefix) ([]Route, error) {
	_, list, err := interfaceRoutes(except)
	if err != nil {
		return nil, err
	}
	routes, err := netstat()
	if err != nil {
		return nil, err
	}
	own := ""
	if i, err := net.InterfaceByIndex(except); err == nil {
		own = i.Name
	}
	for _, r := range routes {
		if r.ifname != own && !strings.HasPrefix(r.ifname, "lo") && !r.learned() {
			list = append(list, Route{r.dst, r.ifname})
		}
	}
	return list, nil
}
