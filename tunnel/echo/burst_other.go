//go:build !linux

package echo

import (
	"errors"
	"net"
)

// errNoSegments says that the system has no way to hand packets on in one piece.
var errNoSegments = errors.New("no segmentation offload on this system")

// segment has nothing to set here.
func segment(*net.UDPConn, int) error { return errNoSegments }
