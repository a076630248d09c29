package standing

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
)

func TestMessagesAreReadBack(t *testing.T) {
	id := [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	told := netip.AddrPortFrom(netip.Addr{}, 0x1234)
	for _, tt := range []struct {
		m   message
		raw string
	}{
		{message{versionDialBack, id, netip.MustParseAddrPort("203.0.113.1:9277")}, "01" + "0102030405060708090a0b0c" + "243d" + "cb007101"},
		{message{versionTry, id, netip.MustParseAddrPort("[2001:db8::1]:1")}, "02" + "0102030405060708090a0b0c" + "0001" + "20010db8000000000000000000000001"},
		{message{versionTold, id, told}, "03" + "0102030405060708090a0b0c" + "1234"},
		{message{versionUnable, id, netip.AddrPort{}}, "04" + "0102030405060708090a0b0c"},
	} {
		raw := encode(tt.m)
		if got := hex.EncodeToString(raw); got != tt.raw {
			t.Errorf("%+v: got %s, want %s", tt.m, got, tt.raw)
		}
		if got, err := decode(raw); err != nil || got != tt.m {
			t.Errorf("%s: got %+v, %v, want %+v", tt.raw, got, err, tt.m)
		}
		for n := range raw {
			if n == portEnd+4 {
				continue // an address of IPv6 is cut to one of IPv4
			}
			if got, err := decode(raw[:n]); !errors.Is(err, errMalformed) || got != (message{}) {
				t.Errorf("%s cut to %d bytes: got %+v, %v, want %v", tt.raw, n, got, err, errMalformed)
			}
		}
		if got, err := decode(append(raw, 0)); !errors.Is(err, errMalformed) {
			t.Errorf("%s and a byte: got %+v, %v, want %v", tt.raw, got, err, errMalformed)
		}
	}
}

func TestAddressesThatNobodySendsTo(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:9277", "224.0.0.1:9277", "0.0.0.0:9277", "255.255.255.255:1", "[::ffff:203.0.113.1]:9277", "[ff02::1]:9277", "203.0.113.1:0", "[fe80::1]:1", "[::1]:1", "[::]:1"} {
		for _, version := range []byte{versionDialBack, versionTry} {
			if got, err := decode(encode(message{version: version, addr: netip.MustParseAddrPort(addr)})); !errors.Is(err, errMalformed) {
				t.Errorf("%s: got %+v, %v, want %v", addr, got, err, errMalformed)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for version := range byte(6) {
		f.Add(encode(message{version: version, id: [12]byte{1}, addr: netip.MustParseAddrPort("203.0.113.1:9277")}))
		f.Add(encode(message{version: version, id: [12]byte{1}, addr: netip.MustParseAddrPort("[2001:db8::1]:9277")}))
		f.Add(encode(message{version: version, addr: netip.AddrPortFrom(netip.Addr{}, 1)}))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decode(raw)
		switch {
		case err != nil && (!errors.Is(err, errMalformed) || m != message{}):
			t.Fatalf("%x: got %+v, %v, want %v alone", raw, m, err, errMalformed)
		case err == nil && !bytes.Equal(encode(m), raw):
			t.Fatalf("%x read as %+v is written as %x", raw, m, encode(m))
		}
	})
}
