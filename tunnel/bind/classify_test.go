package bind

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"slices"
	"testing"
	"time"

	stun2 "github.com/pion/stun/v2"
	"github.com/pion/stun/v3"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// realWireGuard returns an initiation, a response, a cookie reply, a data packet and a keepalive as devices send them.
func realWireGuard(t testing.TB) map[string][]byte {
	at, bt := &tap{Bind: conn.NewStdNetBind()}, &tap{Bind: conn.NewStdNetBind()}
	a, b := startNode(t, at, "10.0.0.1"), startNode(t, bt, "10.0.0.2")
	a.peer(b, true).SetPath(b.addr)
	b.peer(a, false).SetPath(a.addr)
	a.ping(b, 7)
	if _, ok := b.number(10 * time.Second); !ok {
		t.Fatal("no ping through the tunnel")
	}
	public := a.key.PublicKey()
	b.set("public_key=" + hex.EncodeToString(public[:]) + "\npersistent_keepalive_interval=25\n") // sends one at once
	isKeepalive := func(p []byte) bool { return len(p) == device.MessageKeepaliveSize }
	for deadline := time.Now().Add(30 * time.Second); !slices.ContainsFunc(bt.packets(), isKeepalive); {
		if time.Now().After(deadline) {
			t.Fatal("no keepalive")
		}
		time.Sleep(time.Millisecond)
	}
	got := make(map[string][]byte)
	for _, p := range slices.Concat(at.packets(), bt.packets()) {
		switch binary.LittleEndian.Uint32(p) {
		case device.MessageInitiationType:
			got["initiation"] = p
		case device.MessageResponseType:
			got["response"] = p
		case device.MessageTransportType:
			if len(p) == device.MessageKeepaliveSize {
				got["keepalive"] = p
			} else {
				got["data"] = p
			}
		}
	}
	var checker device.CookieChecker
	checker.Init(device.NoisePublicKey(b.key.PublicKey()))
	reply, err := checker.CreateReply(got["initiation"], 0x2112A442, []byte{127, 0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	var cookie bytes.Buffer
	if err := binary.Write(&cookie, binary.LittleEndian, reply); err != nil {
		t.Fatal(err)
	}
	got["cookie reply"] = cookie.Bytes()
	return got
}

func realSTUN(t testing.TB) map[string][]byte {
	id := stun.TransactionID
	build := func(setters ...stun.Setter) []byte {
		m, err := stun.Build(setters...)
		if err != nil {
			t.Fatal(err)
		}
		return m.Raw
	}
	v4 := &stun.XORMappedAddress{IP: net.IPv4(192, 0, 2, 1), Port: 32853}
	v6 := &stun.XORMappedAddress{IP: net.ParseIP("2001:db8::1"), Port: 32853}
	return map[string][]byte{
		"empty request": build(id, stun.BindingRequest),
		"ice check": build(id, stun.BindingRequest, stun.NewUsername("abcd:efgh"),
			stun.NewShortTermIntegrity("secret"), stun.Fingerprint),
		"answer v4":  build(id, stun.BindingSuccess, v4, stun.NewSoftware("warren"), stun.Fingerprint),
		"answer v6":  build(id, stun.BindingSuccess, v6, stun.Fingerprint),
		"error":      build(id, stun.BindingError, stun.CodeRoleConflict, stun.Fingerprint),
		"indication": build(id, stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.Fingerprint),
	}
}

// withAttribute returns a Binding success response with one raw attribute.
func withAttribute(kind uint16, value ...byte) []byte {
	p := []byte{0x01, 0x01, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(len(value)))
	p = append(p, value...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-20))
	return p
}

func channelData(number uint16, payload []byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, number)
	p = binary.BigEndian.AppendUint16(p, uint16(len(payload)))
	return append(p, payload...)
}

func TestClassifyRealPackets(t *testing.T) {
	wg, st := realWireGuard(t), realSTUN(t)
	check := func(name string, p []byte, want Class) {
		t.Helper()
		if got := Classify(p); got != want {
			t.Errorf("%s (%d bytes, % x…): got %v, want %v", name, len(p), p[:min(len(p), 8)], got, want)
		}
	}
	for _, name := range []string{"initiation", "response", "cookie reply", "data", "keepalive"} {
		if wg[name] == nil {
			t.Fatalf("the devices sent no %s", name)
		}
		check(name, wg[name], WireGuard)
		check(name+" in ChannelData", channelData(0x4000, wg[name]), ChannelData)
		check(name+" in padded ChannelData", append(channelData(0x4FFF, wg[name]), 0, 0, 0), ChannelData)
	}
	for name, p := range st {
		check(name, p, STUN)
		check(name+" in ChannelData", channelData(0x4001, p), ChannelData)
		check(name+" with a byte missing", p[:len(p)-1], map[bool]Class{true: Unknown, false: MalformedSTUN}[len(p) == 20])
	}
	long, short := 0, 0
	for _, p := range realQUIC(t) {
		check("quic", p, QUIC)
		if p[0]&quicLongBit != 0 {
			long++
		} else {
			short++
			if !bytes.HasPrefix(p[1:], []byte{0xff, 0xff, 0xff}) {
				t.Errorf("short header: got connection ID % x, want it to start with ff ff ff", p[1:5])
			}
		}
	}
	if long == 0 || short == 0 {
		t.Errorf("got %d long and %d short QUIC headers, want both", long, short)
	}
}

func TestClassifyHostilePackets(t *testing.T) {
	v4 := []byte{0, 1, 0x11, 0x22, 1, 2, 3, 4}
	v6 := append([]byte{0, 2, 0x11, 0x22}, make([]byte, 16)...)
	many := withAttribute(0x8022)
	for range 64 {
		many = append(many, 0x80, 0x22, 0, 0)
	}
	binary.BigEndian.PutUint16(many[2:], uint16(len(many)-20))
	cookieIndex := make([]byte, 32) // a data packet whose receiver index is the STUN cookie
	cookieIndex[0] = 4
	binary.BigEndian.PutUint32(cookieIndex[4:], 0x2112A442)

	tests := []struct {
		name string
		p    []byte
		want Class
	}{
		{"empty", nil, Unknown},
		{"three bytes", []byte{1, 0, 0}, Unknown},
		{"zeros", make([]byte, 148), Unknown},
		{"WireGuard with the STUN cookie as index", cookieIndex, WireGuard},
		{"WireGuard type 5", append([]byte{5, 0, 0, 0}, make([]byte, 60)...), Unknown},
		{"initiation too short", append([]byte{1, 0, 0, 0}, make([]byte, 143)...), Unknown},
		{"initiation too long", append([]byte{1, 0, 0, 0}, make([]byte, 145)...), Unknown},
		{"response of the wrong size", append([]byte{2, 0, 0, 0}, make([]byte, 144)...), Unknown},
		{"cookie reply of the wrong size", append([]byte{3, 0, 0, 0}, make([]byte, 61)...), Unknown},
		{"data too short", append([]byte{4, 0, 0, 0}, make([]byte, 27)...), Unknown},
		{"reserved bytes set", append([]byte{1, 0, 1, 0}, make([]byte, 144)...), Unknown},

		{"XOR-MAPPED-ADDRESS v4", withAttribute(0x0020, v4...), STUN},
		{"XOR-MAPPED-ADDRESS v6", withAttribute(0x0020, v6...), STUN},
		{"XOR-MAPPED-ADDRESS empty", withAttribute(0x0020), MalformedSTUN},
		{"XOR-MAPPED-ADDRESS of 4 bytes", withAttribute(0x0020, v4[:4]...), MalformedSTUN},
		{"XOR-MAPPED-ADDRESS v4 as long as v6", withAttribute(0x0020, append(v4, make([]byte, 12)...)...), MalformedSTUN},
		{"XOR-MAPPED-ADDRESS v6 as short as v4", withAttribute(0x0020, v6[:8]...), MalformedSTUN},
		{"XOR-PEER-ADDRESS empty", withAttribute(0x0012), MalformedSTUN},
		{"XOR-RELAYED-ADDRESS empty", withAttribute(0x0016), MalformedSTUN},
		{"attribute longer than the message", append(withAttribute(0x8022)[:22], 0, 1), MalformedSTUN},
		{"too many attributes", many, MalformedSTUN},
		{"length field too small", append(withAttribute(0x8022), 0, 0, 0, 0), MalformedSTUN},
		{"no cookie", append([]byte{0, 1, 0, 0}, make([]byte, 16)...), Unknown},

		{"ChannelData empty", []byte{0x40, 0, 0, 0}, ChannelData},
		{"ChannelData one byte missing", channelData(0x4000, make([]byte, 40))[:43], QUIC},
		{"ChannelData four bytes of padding", append(channelData(0x4000, make([]byte, 40)), 0, 0, 0, 0), QUIC},
		{"channel 0x5000", channelData(0x5000, make([]byte, 10)), Unknown},
		{"QUIC short header, short", []byte{0x4f, 0xff, 0xff, 0xff, 1, 2, 3, 4}, Unknown},
		{"QUIC short header", append([]byte{0x4f, 0xff, 0xff, 0xff}, make([]byte, 17)...), QUIC},
		{"QUIC long header", append([]byte{0xc0, 0, 0, 0, 1}, make([]byte, 40)...), QUIC},
		{"QUIC without fixed bit", append([]byte{0x80, 0, 0, 0, 1}, make([]byte, 40)...), Unknown},
		{"RTP", append([]byte{0x80, 0x60}, make([]byte, 40)...), Unknown},
		{"DTLS", append([]byte{22, 0xfe, 0xfd}, make([]byte, 40)...), Unknown},
	}
	for _, test := range tests {
		if got := Classify(test.p); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// FuzzClassify also holds the promise that stun/v2, whose parser panics, is safe behind the classifier.
func FuzzClassify(f *testing.F) {
	for _, p := range realSTUN(f) {
		f.Add(p)
		f.Add(channelData(0x4000, p))
	}
	f.Add(withAttribute(0x0020))
	f.Add(append([]byte{1, 0, 0, 0}, make([]byte, 144)...))
	f.Add(append([]byte{4, 0, 0, 0}, make([]byte, 28)...))
	f.Add(append([]byte{0x4f, 0xff, 0xff, 0xff}, make([]byte, 30)...))
	f.Add(append([]byte{0xc0, 0, 0, 0, 1}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		class := Classify(p)
		if !bytes.Equal(p, before) {
			t.Fatal("Classify changed the packet")
		}
		switch class {
		case WireGuard:
			if len(p) < device.MinMessageSize {
				t.Errorf("WireGuard of %d bytes", len(p))
			}
		case ChannelData:
			if n := channelLength(p); n < 0 || n+channelHeaderSize > len(p) {
				t.Errorf("ChannelData of %d bytes says %d", len(p), n)
			}
		case STUN:
			m := &stun2.Message{Raw: p}
			if m.Decode() != nil {
				return
			}
			for _, kind := range []stun2.AttrType{
				stun2.AttrXORMappedAddress, stun2.AttrXORPeerAddress, stun2.AttrXORRelayedAddress,
			} {
				_ = new(stun2.XORMappedAddress).GetFromAs(m, kind)
			}
			_ = new(stun2.MappedAddress).GetFrom(m)
			_ = new(stun2.AlternateServer).GetFrom(m)
			_ = new(stun2.ErrorCodeAttribute).GetFrom(m)
			_ = new(stun2.UnknownAttributes).GetFrom(m)
			_ = new(stun2.Username).GetFrom(m)
			_ = stun2.Fingerprint.Check(m)
			_ = stun2.NewShortTermIntegrity("x").Check(m)
		}
	})
}
