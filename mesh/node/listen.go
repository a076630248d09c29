package node

import "net"

// listenUDP4 opens a socket with a port of the system's choice, for a question or two. Nothing is ever offered on it.
func listenUDP4() (net.PacketConn, error) { return net.ListenUDP("udp4", nil) }
