package stunwire

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	stunv2 "github.com/pion/stun/v2"
	"github.com/pion/stun/v3"
)

var (
	pwd   = strings.Repeat("o", 24)
	addr4 = netip.MustParseAddrPort("192.0.2.7:1234")
	addr6 = netip.MustParseAddrPort("[2001:db8::7]:1234")
)

func mustCheck(t *testing.T) []byte {
	t.Helper()
	raw, err := Check(NewID(), "ownufrag:theirufr", pwd)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What is written is read, by this package and by the library.
func TestWhatIsWrittenIsRead(t *testing.T) {
	id := ID{1, 2, 3}
	for name, raw := range map[string][]byte{"bare": Bare(id), "probe": Probe(id)} {
		p, ok := Inspect(raw)
		m := &stun.Message{Raw: raw}
		if !ok || p.Class != Request || p.ID != id || p.Username != nil || m.Decode() != nil || m.Type != stun.BindingRequest || m.TransactionID != id {
			t.Errorf("%s: got %+v, %v and %v, want a Binding request %v", name, p, ok, m, id)
		}
	}
	p, ok := Inspect(mustCheck(t))
	if !ok || string(p.Username) != "ownufrag:theirufr" || !p.Authentic(pwd) || p.Authentic(pwd+"x") {
		t.Errorf("check: got %+v, %v, want one that is authentic with its password only", p, ok)
	}
	for _, addr := range []netip.AddrPort{addr4, addr6} {
		for _, sign := range []string{"", pwd} {
			raw, err := Answer(id, addr, sign)
			p, ok := Inspect(raw)
			if got, mapped := p.Mapped(); err != nil || !ok || p.Class != Success || p.ID != id || !mapped || got != addr || p.Authentic(pwd) != (sign != "") {
				t.Errorf("answer to %s, signed with %q: got %+v, %v, want it read", addr, sign, p, err)
			}
			if sign == "" && len(raw) > ProbeSize {
				t.Errorf("answer to %s: got %d bytes, want no more than the %d of a probe", addr, len(raw), ProbeSize)
			}
		}
	}
	if got := len(Probe(id)); got != ProbeSize {
		t.Errorf("got a probe of %d bytes, want %d", got, ProbeSize)
	}
}

// What is appended behind the signature is signed by nobody.
func TestNothingFollowsTheSignature(t *testing.T) {
	signed := func(setters ...stun.Setter) []byte {
		setters = append([]stun.Setter{stun.BindingRequest, stun.TransactionID, stun.NewUsername("ownufrag:theirufr")}, setters...)
		return stun.MustBuild(setters...).Raw
	}
	integrity := stun.NewShortTermIntegrity(pwd)
	useCandidate := stun.RawAttribute{Type: 0x0025}
	for name, tt := range map[string]struct {
		raw  []byte
		want bool
	}{
		"before":                       {signed(useCandidate, integrity, stun.Fingerprint), true},
		"no fingerprint":               {signed(useCandidate, integrity), true},
		"after the integrity":          {signed(integrity, useCandidate), false},
		"between":                      {signed(integrity, useCandidate, stun.Fingerprint), false},
		"after the fingerprint":        {signed(integrity, stun.Fingerprint, useCandidate), false},
		"after the fingerprint, alone": {signed(stun.Fingerprint, useCandidate), false},
		"twice":                        {signed(integrity, integrity), false},
	} {
		if _, ok := Inspect(tt.raw); ok != tt.want {
			t.Errorf("%s: got passed %v, want %v", name, ok, tt.want)
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	good := mustCheck(t)
	if _, ok := Inspect(good); !ok {
		t.Fatal("got a good check refused")
	}
	mapped := func(size int, family byte) []byte {
		m := stun.MustBuild(stun.BindingSuccess, stun.TransactionID)
		m.Add(stun.AttrXORMappedAddress, append([]byte{0, family}, make([]byte, max(0, size-2))...)[:size])
		return m.Raw
	}
	many := stun.MustBuild(stun.BindingRequest, stun.TransactionID)
	for range maxAttributes + 1 {
		many.Add(0x8022, []byte("abcd"))
	}
	for name, raw := range map[string][]byte{
		"empty": nil, "short": good[:19], "cut": good[:len(good)-4], "long": append(append([]byte(nil), good...), 0, 0, 0, 0),
		"empty mapped": mapped(0, 1), "odd mapped": mapped(4, 1), "IPv6 in four bytes": mapped(8, 2), "IPv4 in sixteen": mapped(20, 1), "no family": mapped(8, 0),
		"many attributes": many.Raw,
		"indication":      stun.MustBuild(stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.TransactionID).Raw,
		"allocate":        stun.MustBuild(stun.NewType(stun.MethodAllocate, stun.ClassRequest), stun.TransactionID).Raw,
	} {
		if _, ok := Inspect(raw); ok {
			t.Errorf("%s: got it passed, want it refused", name)
		}
	}
}

// What passes Inspect must not trip either version of the library, and is sound.
func FuzzInspect(f *testing.F) {
	check, _ := Check(ID{1}, "ownufrag:theirufr", pwd)
	answer, _ := Answer(ID{1}, addr6, pwd)
	for _, raw := range [][]byte{check, Probe(ID{2}), Bare(ID{3}), answer, {}} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		p, ok := Inspect(raw)
		if !ok {
			return
		}
		if !Sound(raw) || !Is(raw) {
			t.Errorf("got %x passed that is not sound", raw)
		}
		p.Authentic(pwd)
		p.Mapped()
		if !bytes.Equal(raw, before) {
			t.Errorf("got %x changed to %x", before, raw)
		}
		m := &stunv2.Message{Raw: append([]byte(nil), raw...)}
		if m.Decode() != nil {
			return
		}
		var mapped stunv2.XORMappedAddress
		_ = mapped.GetFrom(m)
		_ = stunv2.NewShortTermIntegrity(pwd).Check(m)
		_ = m.Contains(stunv2.AttrUseCandidate)
	})
}

func BenchmarkInspect(b *testing.B) {
	raw, err := Check(NewID(), "ownufrag:theirufr", pwd)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Inspect(raw); !ok {
			b.Fatal("got a good check refused")
		}
	}
}
