package bind

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Words says for people what a virtual address stands for, like "relay channel 7"; "" for an address of the underlay.
func Words(a netip.Addr) string {
	if !IsVirtual(a) {
		return ""
	}
	raw := a.As16()
	kind, ok := map[byte]string{virtualHandle: "no path yet, peer", virtualChannel: "relay channel", virtualStream: "stream"}[raw[8]]
	if !ok {
		return ""
	}
	raw[8] = 0
	return fmt.Sprintf("%s %d", kind, binary.BigEndian.Uint64(raw[8:]))
}
