package netwatch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"syscall"

	"golang.org/x/net/route"
	"golang.org/x/sys/unix"
)

// virtualName matches the names that macOS gives to tunnels, to links between Apple's devices and to virtual machines' networks
// (bridge100 and up), and those of other makers' drivers. Interfaces cannot be renamed there.
var virtualName = regexp.MustCompile(`^((utun|ipsec|gif|stf|awdl|llw|anpi|ap|feth|vmnet|vboxnet|vmenet|tun)[0-9]+|bridge1[0-9]{2})$`)

// query asks the kernel for links with addresses, and for the default routes.
func query() ([]link, []string, error) {
	found, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	routes, gateways, err := defaultRoutes()
	if err != nil {
		return nil, nil, err
	}
	var links []link
	for _, i := range found {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		one := link{name: i.Name, virtual: virtualName.MatchString(i.Name), gateway: slices.Contains(gateways, i.Index)}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface has just gone
		}
		for _, a := range addrs {
			if prefix, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(prefix.IP); ok {
					one.addrs = append(one.addrs, ip.Unmap())
				}
			}
		}
		links = append(links, one)
	}
	return links, routes, nil
}

// defaultRoutes returns a text of each default route, sorted, and the interfaces that they leave by.
func defaultRoutes() (texts []string, links []int, err error) {
	raw, err := route.FetchRIB(unix.AF_UNSPEC, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("read routes: %w", err)
	}
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		if !ok || r.Flags&unix.RTF_GATEWAY == 0 || len(r.Addrs) <= unix.RTAX_NETMASK || !isDefault(r.Addrs) {
			continue
		}
		texts = append(texts, fmt.Sprintf("via %v dev %d", gatewayText(r.Addrs[unix.RTAX_GATEWAY]), r.Index))
		links = append(links, r.Index)
	}
	slices.Sort(texts)
	return texts, links, nil
}

func isDefault(addrs []route.Addr) bool {
	switch dst := addrs[unix.RTAX_DST].(type) {
	case *route.Inet4Addr:
		mask, ok := addrs[unix.RTAX_NETMASK].(*route.Inet4Addr)
		return dst.IP == [4]byte{} && (!ok || mask.IP == [4]byte{})
	case *route.Inet6Addr:
		mask, ok := addrs[unix.RTAX_NETMASK].(*route.Inet6Addr)
		return dst.IP == [16]byte{} && (!ok || mask.IP == [16]byte{})
	}
	return false
}

func gatewayText(a route.Addr) string {
	switch a := a.(type) {
	case *route.Inet4Addr:
		return netip.AddrFrom4(a.IP).String()
	case *route.Inet6Addr:
		return netip.AddrFrom16(a.IP).String()
	case *route.LinkAddr:
		return a.Name
	}
	return ""
}

// subscribe returns a channel that gets a value, coalesced, at each message of the routing socket.
func subscribe(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("open routing socket: %w", err)
	}
	syscall.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open routing socket: %w", err)
	}
	// With a non-blocking descriptor, closing the file ends a read.
	file := os.NewFile(uintptr(fd), "route")
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	notices := make(chan struct{}, 1)
	go func() {
		defer stop()
		buf := make([]byte, 4096)
		for {
			if _, err := file.Read(buf); err != nil && ctx.Err() != nil {
				return
			} else if err != nil && !isTransient(err) {
				_ = file.Close()
				return
			}
			select {
			case notices <- struct{}{}:
			default:
			}
		}
	}()
	return notices, nil
}

// isTransient reports an overflow of the socket's queue: messages are lost, but what counts is that there were any.
func isTransient(err error) bool {
	pathErr, ok := err.(*os.PathError)
	return ok && (pathErr.Err == syscall.ENOBUFS || pathErr.Err == syscall.EINTR)
}
