package place

import (
	"context"
	"log/slog"
	"net"

	"warren/nat/dns64"
	"warren/nat/nat64"
	"warren/nat/rtnl"
	"warren/tunnel/sockets"
)

// wayToIPv4 finds out how a joiner reaches IPv4, if not by itself. It takes a moment, and five seconds where no resolver answers.
func wayToIPv4(ctx context.Context, logger *slog.Logger) *nat64.Way {
	way := new(nat64.Way)
	dns64.New(dns64.Options{Way: way, Logger: logger, Advertised: rtnl.Advertised}).Once(ctx)
	return way
}

// openSocket opens a joiner's socket, of both families.
func openSocket(way *nat64.Way) (net.PacketConn, error) {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	sockets.Fragment(c)
	return dns64.Packets{PacketConn: c, Way: way}, nil
}
