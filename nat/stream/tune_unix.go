//go:build linux || darwin

package stream

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxUnsent bounds what waits in the kernel beyond what TCP may send now: four TLS records. What waits longer should
	// wait in the stream's queue, which drops the oldest: inside the stream are protocols that would rather lose a packet than
	// get it late.
	maxUnsent = 64 << 10

	// unacknowledged is how long sent data may wait for its acknowledgement (RFC 5482): longer than TCP takes over one loss on
	// a path by satellite. By itself TCP would go on for a quarter of an hour after a NAT has forgotten it.
	unacknowledged = 3 * time.Second

	// On an idle stream the sessions inside send every few seconds; these are for one that has none. Most NATs keep TCP for
	// much longer than UDP, so that no device is woken more often for it.
	keepaliveIdle     = 25 * time.Second
	keepaliveInterval = 2 * time.Second
	keepaliveCount    = 2
)

// tune sets what can be set; a connection works without it. TCP_NODELAY is Go's default.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, userTimeout, int(unacknowledged/userTimeoutUnit))
		})
	}
}
