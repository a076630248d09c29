package sockets

import "golang.org/x/sys/unix"

// setExact sets DF on IPv4, and on IPv6 that the system does not fragment.
func setExact(fd int, six, on bool) {
	value := 0
	if on {
		value = 1
	}
	if six {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, value)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_DONTFRAG, value)
}
