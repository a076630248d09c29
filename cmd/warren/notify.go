package main

import (
	"net"
	"strings"
)

// notifier tells systemd about the state of the agent by the protocol of sd_notify(3): a datagram to a unix socket. Without
// a socket it is silent.
type notifier struct{ socket string }

// send tells one assignment such as READY=1. Nothing can be done about a failure: systemd then acts on its own timeout.
func (n notifier) send(state string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // the abstract namespace, unix(7)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
