//go:build unix

package fallback

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxUnsent bounds what waits in the kernel beyond what TCP may send now. What waits longer should wait in the stream's
// queue, which drops the oldest: inside the stream are protocols that would rather lose a packet than get it late.
const maxUnsent = 128 << 10

// tune sets what can be set; a connection works without it.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
		})
	}
}
