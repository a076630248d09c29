package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// groups are the multicast groups of rtnetlink(7) that say what changes.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

const (
	// queue is how much the kernel keeps for a process that is stopped, in bytes, as far as net.core.rmem_max or CAP_NET_ADMIN allows. What
	// does not fit is lost, and noticed.
	queue = 1 << 20
	// reopen is how long after an error that nobody foresaw the socket is opened anew.
	reopen = time.Second
)

// Subscribe returns a channel that gets a value, coalesced, whenever one of the kernel's messages about links, addresses and routes tells of
// something that counts; tells is asked of each, one after the other. It goes on until ctx ends: when the kernel had to
// drop messages, that counts, and when the socket fails, another one is opened.
func Subscribe(ctx context.Context, tells func(Message) bool) (<-chan struct{}, error) {
	return subscribe(ctx, groups, tells)
}

func subscribe(ctx context.Context, groups uint32, tells func(Message) bool) (<-chan struct{}, error) {
	first, err := openRoute(groups)
	if err != nil {
		return nil, fmt.Errorf("subscribe to network changes: %w", err)
	}
	notices := make(chan struct{}, 1)
	go func() {
		for s := first; ctx.Err() == nil; {
			if s != nil {
				listen(ctx, s, tells, notices)
			}
			notify(notices) // whatever was missed
			select {
			case <-ctx.Done():
				return
			case <-time.After(reopen):
			}
			s, _ = openRoute(groups)
		}
	}()
	return notices, nil
}

// openRoute opens a socket on which the kernel tells of changes.
func openRoute(groups uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queue) // less will do
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil // it is non-blocking: closing the file ends a read
}

// listen tells of changes until ctx ends or the socket fails, and closes it.
func listen(ctx context.Context, s *os.File, tells func(Message) bool, notices chan<- struct{}) {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer s.Close()
	defer stop()
	buf := make([]byte, answers)
	for {
		n, err := s.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS): // messages were dropped: all may have changed
			notify(notices)
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		default:
			for m := range Messages(buf[:n]) {
				if tells(m) {
					notify(notices)
				}
			}
		}
	}
}

func notify(notices chan<- struct{}) {
	select {
	case notices <- struct{}{}:
	default:
	}
}
