package beacon

import "golang.org/x/sys/unix"

// share lets several sockets have one port: for multicast each of them gets every packet (setsockopt(2), SO_REUSEPORT).
func share(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
