package tunnel

import "golang.zx2c4.com/wireguard/tun"

// makeTUN makes a utun device.
func makeTUN(name string, mtu int) (tun.Device, error) { return tun.CreateTUN(name, mtu) }
