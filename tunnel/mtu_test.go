package tunnel

import (
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/fit"
	"warren/tunnel/osnet"
	"warren/tunnel/pathmtu"
)

func TestWhatIsAskedOfAPath(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:9277"), netip.MustParseAddrPort("[2001:db8::1]:9277")
	relay := netip.MustParseAddrPort("[100::200:0:0:1]:9")
	tests := []struct {
		name  string
		path  path
		fixed int
		want  pathmtu.Path
	}{
		{"IPv4", path{Addr: four, Direct: true, Link: 1500}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 1376, Default: 1376}},
		{"IPv6", path{Addr: six, Direct: true, Link: 1500}, 0, pathmtu.Path{Addr: six, Overhead: 80, Top: 1376, Default: 1376}},
		{"narrow link", path{Addr: six, Direct: true, Link: 1280}, 0, pathmtu.Path{Addr: six, Overhead: 80, Top: 1376, Default: 1376}},
		{"unknown link", path{Addr: four, Direct: true}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 1376, Default: 1376}},
		{"relay", path{Addr: relay, Link: 9000}, 0, pathmtu.Path{Addr: relay, Overhead: 84, Top: 1376, Default: 1376}},
		{"jumbo frames, IPv4", path{Addr: four, Direct: true, Link: 9000}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 8928, Default: 1376}},
		{"jumbo frames, IPv6", path{Addr: six, Direct: true, Link: 9001}, 0, pathmtu.Path{Addr: six, Overhead: 80, Top: 8912, Default: 1376}},
		{"loopback", path{Addr: four, Direct: true, Link: 65536}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 9152, Default: 1376}},
		{"configured", path{Addr: four, Direct: true, Link: 9000}, 1420, pathmtu.Path{Addr: four, Overhead: 60, Top: 1420, Default: 1420}},
		{"configured at its largest", path{Addr: four, Direct: true}, 65535, pathmtu.Path{Addr: four, Overhead: 60, Top: 65503, Default: 65535}},
		{"none", path{}, 0, pathmtu.Path{Overhead: 84, Top: 1376, Default: 1376}},
	}
	for _, test := range tests {
		if got := test.path.question(test.fixed); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// lastFit is what was last told.
type lastFit struct {
	self  netip.Addr
	peers []fit.Peer
}

func (l *lastFit) SetPeers(self netip.Addr, list []fit.Peer) { l.self, l.peers = self, list }
func (l *lastFit) SetPath([32]byte, pathmtu.Path)            {}

// Probes need an address of this node's to come from, and sizes a configured MTU: both count for peers that were told before the link.
func TestLinkAndPeersInAnyOrder(t *testing.T) {
	link := factsOf(osnet.Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128 fd02::2/128"), MTU: 1400})
	self := netip.MustParseAddr("fd01::2")
	if want := (linkFacts{self: self, mtu: 1400}); link != want {
		t.Fatalf("got %+v, want %+v", link, want)
	}
	tell := map[string]func(*sizes){
		"link": func(s *sizes) { s.setLink(link) },
		"peers": func(s *sizes) {
			s.setPeers([]Peer{{PublicKey: wgtypes.Key{1}, Answers: netip.MustParseAddr("fd01::1")}})
		},
	}
	for _, order := range [][]string{{"link", "peers"}, {"peers", "link"}, {"peers", "link", "peers"}, {"link", "peers", "link"}} {
		var last lastFit
		s := sizes{fit: &last}
		for _, what := range order {
			tell[what](&s)
		}
		if last.self != self || len(last.peers) != 1 || last.peers[0].Path.Default != 1400 {
			t.Errorf("%v: got %+v, want a peer of 1400 bytes, probed from %v", order, last, self)
		}
	}
}
