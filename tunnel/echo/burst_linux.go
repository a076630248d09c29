package echo

import (
	"net"

	"golang.org/x/sys/unix"
)

// segment has what is written be cut into datagrams of so many bytes, as late as can be.
func segment(c *net.UDPConn, length int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, length) }); err != nil {
		return err
	}
	return failed
}
