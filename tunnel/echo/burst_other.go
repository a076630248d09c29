//go:build !linux

package echo

import "net"

// segment has nothing to set here.
func segment(*net.UDPConn, int) error { return errNoSegments }
