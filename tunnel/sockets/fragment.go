package sockets

import "net"

// Fragment has the packets of a socket cut up on a path that is too narrow for them, where IPv4 can: what is sent once or twice, and
// not measured, is to arrive. Of IPv6 the sender alone cuts, by what routers have told. Sockets of package net do neither.
func Fragment(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // it was closed
	}
	_ = raw.Control(func(fd uintptr) {
		setExact(int(fd), false, false)
		setExact(int(fd), true, false) // of a socket of both families
	})
}
