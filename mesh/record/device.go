package record

import (
	"net/netip"

	"warren/mesh/identity"
)

// Device is a plain WireGuard device that a node hosts, as the others know it.
type Device struct {
	Name  string       // a DNS label in lower case; see CleanName
	Addrs []netip.Addr // one or two, in the overlay
	Tags  []string     // as an invite's
}

// deviceWire is a device in CBOR: its name, its addresses of 4 or 16 bytes, its tags.
type deviceWire struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Addrs [][]byte
	Tags  []string
}

func joinDevices(devices []Device) (out []deviceWire) {
	for _, d := range devices {
		w := deviceWire{Name: d.Name, Tags: d.Tags}
		for _, addr := range d.Addrs {
			w.Addrs = append(w.Addrs, addr.AsSlice())
		}
		out = append(out, w)
	}
	return out
}

// splitDevices is the reverse of joinDevices, and checks the bounds.
func splitDevices(list []deviceWire) (out []Device, err error) {
	if len(list) > MaxDevices {
		return nil, malformed("node with %d devices", len(list))
	}
	for _, w := range list {
		if w.Name == "" || w.Name != CleanName(w.Name) || len(w.Addrs) < 1 || len(w.Addrs) > 2 {
			return nil, malformed("device with the name %q and %d addresses", w.Name, len(w.Addrs))
		}
		if err := identity.CheckTags(w.Tags); err != nil {
			return nil, malformed("device: %v", err)
		}
		d := Device{Name: w.Name, Tags: w.Tags}
		for _, raw := range w.Addrs {
			addr, _, ok := splitAddr(raw, 0)
			if !ok {
				return nil, malformed("device with the address %x", raw)
			}
			d.Addrs = append(d.Addrs, addr)
		}
		out = append(out, d)
	}
	return out, nil
}
