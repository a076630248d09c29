package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answers is the room for messages of one read: the kernel fills at most 32 KiB.
	answers = 32 << 10
	// patience bounds one read of an answer, which the kernel makes while it is read.
	patience = 10 * time.Second
	// attempts is how often a list is asked for that changes while it is read. Of the last one all counts that was read: of what has changed
	// there are notices.
	attempts = 4
)

// errInterrupted says that a list has changed while it was read.
var errInterrupted = errors.New("changed while it was read")

// request is one question to the kernel.
type request struct {
	kind uint16 // RTM_GET…
	list bool   // all that there are, else one
	body []byte // after the header
}

// message returns the request as it is sent.
func (r request) message() []byte {
	flags := uint16(unix.NLM_F_REQUEST)
	if r.list {
		flags |= unix.NLM_F_DUMP
	}
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(r.body))
	binary.NativeEndian.PutUint32(m, uint32(unix.SizeofNlMsghdr+len(r.body)))
	binary.NativeEndian.PutUint16(m[4:], r.kind)
	binary.NativeEndian.PutUint16(m[6:], flags)
	binary.NativeEndian.PutUint32(m[8:], 1)
	return append(m, r.body...)
}

// ask sends a request and hands the messages of the answer to begin's function, without their headers, until that returns false: then no
// more is read. begin is called before each attempt, with whether the kernel filters.
func ask(r request, begin func(strict bool) func(m []byte) bool) error {
	for n := 1; ; n++ {
		err := askOnce(r, begin)
		if !errors.Is(err, errInterrupted) {
			return err
		}
		if n == attempts {
			return nil
		}
	}
}

func askOnce(r request, begin func(strict bool) func(m []byte) bool) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer unix.Close(fd)
	strict := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) == nil
	wait := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := unix.Sendto(fd, r.message(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask rtnetlink: %w", err)
	}
	each, interrupted := begin(strict), false
	buf := make([]byte, answers)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read rtnetlink: %w", err)
		}
		for m := range Messages(buf[:n]) {
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.Kind == unix.NLMSG_DONE || m.Kind == unix.NLMSG_ERROR:
				if len(m.Body) >= 4 {
					if errno := int32(binary.NativeEndian.Uint32(m.Body)); errno != 0 {
						return fmt.Errorf("read rtnetlink: %w", unix.Errno(-errno))
					}
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			case !each(m.Body), m.flags&unix.NLM_F_MULTI == 0:
				return nil
			}
		}
	}
}
