package tunnel

import (
	"bytes"
	"net"
	"net/netip"

	"warren/tunnel/bind"
)

// plain is a connection to the control socket on which no endpoints are told that are none of the network: the tools of WireGuard would
// show them to people. A peer that is relayed, reached by a stream or not at all has none there.
type plain struct {
	net.Conn
	rest []byte // of a line that is not whole yet; owned by the one who writes
}

var endpointLine = []byte("endpoint=")

// Write implements net.Conn. What is not a whole line waits for its end: all that the device says ends with one.
func (c *plain) Write(p []byte) (int, error) {
	c.rest = append(c.rest, p...)
	end := bytes.LastIndexByte(c.rest, '\n') + 1
	var out []byte
	for line := range bytes.Lines(c.rest[:end]) {
		if text, ok := bytes.CutPrefix(line, endpointLine); ok {
			if at, err := netip.ParseAddrPort(string(bytes.TrimSpace(text))); err == nil && bind.IsVirtual(at.Addr()) {
				continue
			}
		}
		out = append(out, line...)
	}
	c.rest = append(c.rest[:0], c.rest[end:]...)
	if len(out) > 0 {
		if _, err := c.Conn.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
