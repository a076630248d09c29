package tunnel

import (
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/bind/bindtest"
)

// TestUAPI has a device take what is written, and say what it has.
func TestUAPI(t *testing.T) {
	d := device.NewDevice(tuntest.NewChannelTUN().TUN(), bindtest.NewNetwork().Host(netip.MustParseAddr("192.0.2.1")), device.NewLogger(device.LogLevelSilent, ""))
	defer d.Close()
	private, psk, port, keepalive, other := key('s'), key('p'), 9277, 25*time.Second, key('q')
	set := func(c wgtypes.Config) {
		t.Helper()
		if err := setDevice(d, c); err != nil {
			t.Fatal(err)
		}
	}
	has := func(what string, lines ...string) {
		t.Helper()
		text, err := d.IpcGet()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			line, not := strings.CutPrefix(line, "not ")
			if strings.Contains(text, line+"\n") == not {
				t.Errorf("%s: got %q, want %v: %q", what, text, !not, line)
			}
		}
	}
	a, b := hexOf(key('a')), hexOf(key('b'))
	set(wgtypes.Config{PrivateKey: &private, ListenPort: &port, Peers: []wgtypes.PeerConfig{
		{
			PublicKey: key('a'), PresharedKey: &psk, Endpoint: &net.UDPAddr{IP: net.ParseIP("2001:db8::2"), Port: 7}, PersistentKeepaliveInterval: &keepalive,
			AllowedIPs: ipNets(prefixes("10.0.0.1/32 fd01::/64")),
		},
		{PublicKey: key('b'), AllowedIPs: ipNets(prefixes("10.0.0.2/32"))},
		{PublicKey: key('c'), UpdateOnly: true, PresharedKey: &psk},
	}})
	has("all", "listen_port=9277", "public_key="+a, "preshared_key="+hexOf(psk), "endpoint=[2001:db8::2]:7", "persistent_keepalive_interval=25",
		"allowed_ip=10.0.0.1/32", "allowed_ip=fd01::/64", "public_key="+b, "allowed_ip=10.0.0.2/32", "not public_key="+hexOf(key('c')))
	set(wgtypes.Config{Peers: []wgtypes.PeerConfig{
		{PublicKey: key('b'), Remove: true},
		{PublicKey: key('a'), UpdateOnly: true, PresharedKey: &other, ReplaceAllowedIPs: true, AllowedIPs: ipNets(prefixes("10.0.0.3/32"))},
	}})
	has("changes", "public_key="+a, "preshared_key="+hexOf(other), "endpoint=[2001:db8::2]:7", "allowed_ip=10.0.0.3/32", "not allowed_ip=fd01::/64", "not public_key="+b)
}

// TestEndpointsIn finds where the device sends to, virtual addresses too.
func TestEndpointsIn(t *testing.T) {
	d := device.NewDevice(tuntest.NewChannelTUN().TUN(), bindtest.NewNetwork().Host(netip.MustParseAddr("192.0.2.1")), device.NewLogger(device.LogLevelSilent, ""))
	defer d.Close()
	want := map[wgtypes.Key]netip.AddrPort{
		key('4'): netip.MustParseAddrPort("192.0.2.7:9277"), key('6'): netip.MustParseAddrPort("[2001:db8::1]:1"), key('v'): netip.MustParseAddrPort("[100::200:0:0:7]:9"),
	}
	c := wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key('n')}}}
	for k, addr := range want {
		c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: k, Endpoint: net.UDPAddrFromAddrPort(addr)})
	}
	if err := setDevice(d, c); err != nil {
		t.Fatal(err)
	}
	said, err := d.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	if got := endpointsIn(said); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestPeerIsMadeWhileItIsUsed has the device send elsewhere to a peer that is just made, again and again. Where the device makes the peer itself, the
// race detector tells of it (handlePostConfig).
func TestPeerIsMadeWhileItIsUsed(t *testing.T) {
	d := device.NewDevice(tuntest.NewChannelTUN().TUN(), bindtest.NewNetwork().Host(netip.MustParseAddr("192.0.2.1")), device.NewLogger(device.LogLevelSilent, ""))
	defer d.Close()
	ended, moved := make(chan struct{}), 0
	stop := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if peer := d.LookupPeer(device.NoisePublicKey(key('a'))); peer != nil {
				peer.SetEndpointFromPacket(&conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort("192.0.2.9:1")})
				moved++
			}
		}
	}()
	anew := wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key('a'), Remove: true}, {PublicKey: key('a')}}}
	for range 500 {
		if err := setDevice(d, anew); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if <-ended; moved == 0 {
		t.Error("the peer was never used")
	}
}
