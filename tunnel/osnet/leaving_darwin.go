package osnet

import (
	"errors"
	"net/netip"
)

func leavingFor(netip.Addr) (Leaving, error) { return Leaving{}, errors.ErrUnsupported }
