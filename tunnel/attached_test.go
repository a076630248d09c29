package tunnel

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/bind/bindtest"
)

// TestInsideIsTheDevices holds what is read out of the device's memory equal to what its configuration protocol says. When it
// fails the device has changed its inside: LastHandshake still works, but reads all peers each time; and no path shows a sign of
// life any more but answers to checks.
func TestInsideIsTheDevices(t *testing.T) {
	network := bindtest.NewNetwork()
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	var keys []wgtypes.Key
	var devices []*device.Device
	for _, addr := range addrs {
		k, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		d := device.NewDevice(tuntest.NewChannelTUN().TUN(), network.Host(addr), device.NewLogger(device.LogLevelSilent, ""))
		t.Cleanup(d.Close)
		keys, devices = append(keys, k), append(devices, d)
	}
	for i, d := range devices {
		other := keys[1-i].PublicKey()
		text := fmt.Sprintf("private_key=%s\nlisten_port=9277\npublic_key=%s\nendpoint=%v:9277\n", hex.EncodeToString(keys[i][:]), hex.EncodeToString(other[:]), addrs[1-i])
		if err := d.IpcSet(text); err != nil {
			t.Fatal(err)
		}
		if err := d.Up(); err != nil {
			t.Fatal(err)
		}
	}
	peer := devices[0].LookupPeer(device.NoisePublicKey(keys[1].PublicKey()))
	said := func() time.Time {
		text, err := devices[0].IpcGet()
		if err != nil {
			t.Fatal(err)
		}
		var sec, nsec int64
		for line := range strings.Lines(text) {
			fmt.Sscanf(line, "last_handshake_time_sec=%d", &sec)
			fmt.Sscanf(line, "last_handshake_time_nsec=%d", &nsec)
		}
		if sec == 0 {
			return time.Time{}
		}
		return time.Unix(sec, nsec)
	}
	if at, ok := lastHandshake(peer); !ok || at != 0 || !said().IsZero() {
		t.Errorf("before the first: got %v, %v, want zero as %v", at, ok, said())
	}
	if err := peer.SendHandshakeInitiation(false); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); said().IsZero(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no handshake within 30 s")
		}
	}
	if at, ok := lastHandshake(peer); !ok || at != said().UnixNano() {
		t.Errorf("got %v, %v, want %v", at, ok, said())
	}
	text, err := devices[0].IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	var want uint64
	for line := range strings.Lines(text) {
		fmt.Sscanf(line, "rx_bytes=%d", &want)
	}
	if got, ok := authentic(peer); !ok || got != want || got == 0 {
		t.Errorf("got %d bytes authenticated, %v, want %d", got, ok, want)
	}
}
