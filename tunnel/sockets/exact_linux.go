package sockets

import "golang.org/x/sys/unix"

// setExact sets the socket's treatment of packets that are larger than the path. IPv4: DF, or no DF and no belief in what
// routers are said to have told; plain sockets have DF, so that a path that is too narrow and silent swallows what they
// send. IPv6: as they are, or as the kernel has it, which fragments by what routers have told.
func setExact(fd int, six, on bool) {
	switch {
	case six && on:
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	case six:
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT)
	case on:
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	default:
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	}
}
