package beacon

import "golang.org/x/sys/unix"

// share lets several sockets have one port: for multicast each of them gets every packet (socket(7), SO_REUSEADDR).
func share(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }
