package standing

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/natkind"
	"warren/nat/natprobe/natprobetest"
)

func TestTaken(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("2001:db8::2")}
	for name, test := range map[string]struct {
		port uint16
		seen []string
		want string
	}{
		"nothing seen":           {9277, nil, ""},
		"seen as it is":          {9277, []string{"203.0.113.2:9277", "[2001:db8::2]:9277"}, ""},
		"behind a router":        {9277, []string{"198.51.100.9:31131"}, ""},
		"another port":           {9277, []string{"203.0.113.2:31131"}, "203.0.113.2:31131"},
		"by some anchors only":   {9277, []string{"203.0.113.2:9277", "203.0.113.2:1024"}, "203.0.113.2:1024"},
		"over IPv6":              {9277, []string{"[2001:db8::2]:1024"}, "[2001:db8::2]:1024"},
		"from inside the LAN":    {9277, []string{"192.168.1.1:1024"}, "192.168.1.1:1024"},
		"the socket is not open": {0, []string{"203.0.113.2:31131"}, ""},
	} {
		var seen []netip.AddrPort
		for _, text := range test.seen {
			seen = append(seen, netip.MustParseAddrPort(text))
		}
		got := taken(own, test.port, seen)
		if (got.Port != 0) != (test.want != "") || test.want != "" && (got.Seen.String() != test.want || got.Port != test.port) {
			t.Errorf("%s: got %+v, want %q", name, got, test.want)
		}
	}
}

// What an anchor has said that does not answer any more is not so for ever: the port is not taken once nobody says so.
func TestTakenIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, natprobetest.Options{})
		w.home.run()
		w.home.Set(Desired{Port: port})
		time.Sleep(2 * portSettles)
		host := w.home.hosts[0]
		w.home.set(func() {
			w.home.sights = []natkind.Sighting{{Server: netip.MustParseAddrPort("198.51.100.9:9277"), Mapped: netip.AddrPortFrom(host, 31131), At: time.Now()}}
		})
		w.home.Set(Desired{Port: port, Mode: Never}) // any news has it looked at
		time.Sleep(time.Second)
		if got := w.home.Snapshot().Taken; got.Port != port {
			t.Fatalf("seen as another port: got %+v, want it taken", got)
		}
		time.Sleep(sightingFor)
		if got := w.home.Snapshot().Taken; got.Port != 0 {
			t.Errorf("not seen for %v: got %+v, want it free", sightingFor, got)
		}
		w.end()
	})
}
