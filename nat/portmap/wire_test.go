package portmap

import (
	"bytes"
	"errors"
	"net/netip"
	"net/url"
	"testing"
	"time"
)

// answerPCP is a granted MAP of 9277 to 203.0.113.1:9278 for two minutes.
var answerPCP = append(append([]byte{2, 0x81, 0, 0, 0, 0, 0, 120, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 17, 0, 0, 0, 0x24, 0x3d, 0x24, 0x3e),
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 1)

func TestParsePCP(t *testing.T) {
	got, err := parsePCP(answerPCP)
	want := pcpMessage{opcode: 1, life: 2 * time.Minute, nonce: [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, protocol: 17, internal: 9277, external: netip.MustParseAddrPort("203.0.113.1:9278")}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for name, b := range map[string][]byte{
		"empty": {}, "short": answerPCP[:20], "no mapping": answerPCP[:24], "odd length": answerPCP[:59],
		"too long": append(bytes.Clone(answerPCP), make([]byte, 1100)...), "request": append([]byte{2, 1}, answerPCP[2:]...), "version 3": append([]byte{3}, answerPCP[1:]...),
	} {
		if got, err := parsePCP(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
	if _, err := parsePCP([]byte{0, 0x80, 0, 1, 0, 0, 0, 5}); !errors.Is(err, errNATPMP) || !errors.Is(err, errAbsent) {
		t.Errorf("got %v for an answer of NAT-PMP", err)
	}
}

func TestParseNATPMP(t *testing.T) {
	got, err := parseNATPMP([]byte{0, 129, 0, 0, 0, 0, 0, 9, 0x24, 0x3d, 0x24, 0x3e, 0, 0, 0, 120})
	if want := (natpmpMessage{opcode: 1, internal: 9277, external: 9278, life: 2 * time.Minute}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = parseNATPMP([]byte{0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 1})
	if want := (natpmpMessage{addr: netip.MustParseAddr("203.0.113.1")}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for name, b := range map[string][]byte{"empty": {}, "request": {0, 0, 0, 0}, "short": {0, 129, 0, 0, 0, 0, 0, 9}, "opcode": {0, 131, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if got, err := parseNATPMP(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
	if _, err := parseNATPMP(answerPCP); !errors.Is(err, errPCP) {
		t.Errorf("got %v for an answer of PCP", err)
	}
}

const answerSSDP = "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://192.168.1.1:5000/root.xml\r\n\r\n"

func TestParseSSDP(t *testing.T) {
	got, err := parseSSDP([]byte(answerSSDP))
	if err != nil || got.String() != "http://192.168.1.1:5000/root.xml" {
		t.Errorf("got %v, %v", got, err)
	}
	for name, change := range map[string][2]string{
		"a name":       {"192.168.1.1", "evil.example"},
		"a scheme":     {"http:", "file:"},
		"a user":       {"http://", "http://a@"},
		"another kind": {"InternetGatewayDevice", "MediaServer"},
		"no":           {"200 OK", "404 Not Found"},
		"a request":    {"HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1"},
	} {
		b := bytes.Replace([]byte(answerSSDP), []byte(change[0]), []byte(change[1]), 1)
		if got, err := parseSSDP(b); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestFromRouter(t *testing.T) {
	v4 := place{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("192.168.1.10"), 1, false}
	v6 := place{netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("2001:db8:1::10"), 1, false}
	tests := []struct {
		from string
		p    place
		want bool
	}{
		{"192.168.1.1", v4, true}, {"192.168.1.2", v4, false},
		{"fe80::1%eth0", v6, true}, {"fe80::2%eth0", v6, false}, {"2001:db8:1::1", v6, true}, {"2001:db8:2::1", v6, false},
	}
	for _, tt := range tests {
		if got := fromRouter(netip.MustParseAddr(tt.from), tt.p); got != tt.want {
			t.Errorf("got %v from %s, want %v", got, tt.from, tt.want)
		}
	}
}

func FuzzParsePCP(f *testing.F) {
	f.Add(answerPCP)
	f.Add([]byte{0, 0x80, 0, 1, 0, 0, 0, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parsePCP(b)
		if err == nil && m.opcode == pcpMap && m.result != pcpUnsuppVersion && len(b) < pcpHeader+pcpMapSize {
			t.Errorf("got a mapping out of %d bytes", len(b))
		}
		_ = m.result.String()
	})
}

func FuzzParseNATPMP(f *testing.F) {
	f.Add([]byte{0, 129, 0, 0, 0, 0, 0, 9, 0x24, 0x3d, 0x24, 0x3e, 0, 0, 0, 120})
	f.Add([]byte{0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseNATPMP(b)
		if err == nil && m.result == natpmpSuccess && m.opcode == natpmpAddress && !m.addr.Is4() {
			t.Errorf("got %+v without an address", m)
		}
		_ = m.result.String()
	})
}

func FuzzParseSSDP(f *testing.F) {
	f.Add([]byte(answerSSDP))
	f.Fuzz(func(t *testing.T, b []byte) {
		location, err := parseSSDP(b)
		if err != nil {
			return
		}
		if _, err := netip.ParseAddr(location.Hostname()); err != nil || location.Scheme != "http" {
			t.Errorf("got location %q", location)
		}
	})
}

func FuzzParseDescription(f *testing.F) {
	f.Add([]byte(`<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device><serviceList><service>` +
		`<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL></service></serviceList></device></deviceList></device></root>`))
	location := &url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/root.xml"}
	client := newHTTP(systemNetwork{}, place{})
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := parseDescription(bytes.NewReader(b), location)
		if err != nil {
			return
		}
		if got := connections(root, client, location); len(got) > tries {
			t.Errorf("got %d services, want at most %d", len(got), tries)
		}
	})
}
