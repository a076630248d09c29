package tunnel

import (
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// pollEvery is how often the interface is looked at. There are no notices, and a look runs three programs.
const pollEvery = time.Minute

// makeTUN makes a utun device.
func makeTUN(name string, mtu int) (tun.Device, error) { return tun.CreateTUN(name, mtu) }
