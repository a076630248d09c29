package roster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"warren/mesh/identity"
	"warren/mesh/record"
)

var (
	give4 = netip.MustParsePrefix("100.70.0.0/20")
	give6 = netip.MustParsePrefix("fd00:1:2::/48")
)

// claimant makes an active member without a grant. The WireGuard key is of its own.
func claimant(id identity.NodeID, name string, probe int) Member {
	m := Member{ID: id, Record: record.Node{ID: id, Name: name, WireGuardKey: [32]byte(id)}}
	if probe >= 0 {
		m.Record.Addr4 = identity.Addr4(give4, id, probe)
	}
	m.Addr6 = addr6Of(id)
	return m
}

func addr6Of(id identity.NodeID) netip.Addr {
	raw := give6.Addr().As16()
	copy(raw[6:], id[:10])
	return netip.AddrFrom16(raw)
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// given is what a member has.
func given(m Member) string {
	return fmt.Sprintf("%s %v %v key=%s", m.Name, m.Addr4, m.Routes, m.KeyTakenBy.Short())
}

// freeze grants a member what it has.
func freeze(m *Member, serial uint64) {
	m.Grant = &record.Grant{Node: m.ID, Serial: serial, Version: 1, Name: m.Name, Wanted: m.Record.Name, Addr4: m.Addr4, Routes: m.Routes}
}

// kept is what a member has of what it was granted.
func kept(m Member) string {
	var routes []netip.Prefix
	for _, r := range m.Routes {
		if slices.Contains(m.Grant.Routes, r) {
			routes = append(routes, r)
		}
	}
	m.Routes = routes
	if !m.Grant.Addr4.IsValid() {
		m.Addr4 = netip.Addr{} // it may find a free one any time
	}
	return given(m)
}

// renew takes away what was given, and gives anew.
func renew(members []Member) []Member {
	out := slices.Clone(members)
	for i := range out {
		out[i].Name, out[i].Addr4, out[i].Routes, out[i].KeyTakenBy = "", netip.Addr{}, nil, identity.NodeID{}
	}
	give(give4, give6, out)
	return out
}

func TestGive(t *testing.T) {
	a, b, c := claimant(identity.NodeID{1}, "nas", 0), claimant(identity.NodeID{2}, "nas", 0), claimant(identity.NodeID{3}, "", 63)
	addrB := identity.Addr4(give4, b.ID, 0)
	route := prefixes("100.70.3.16/28")
	want := func(title string, members []Member, want ...string) {
		t.Helper()
		for i, m := range renew(members) {
			if got := fmt.Sprint(m.Name, " ", m.Addr4, " ", m.Routes); got != want[i] {
				t.Errorf("%s: member %d has %s, want %s", title, i, got, want[i])
			}
		}
	}
	own := func(m Member, probe int) string { return identity.Addr4(give4, m.ID, probe).String() }
	want("by the order of admission", []Member{a, b, c}, "nas "+own(a, 0)+" []", "nas-2 "+own(b, 0)+" []", "node-"+c.ID.Short()[:6]+" "+own(c, 63)+" []")

	far := c
	far.Record.Addr4 = identity.Addr4(give4, c.ID, 64)
	foreign := a
	foreign.Record.Addr4 = addrB
	want("only what its ID leads to", []Member{foreign, b, far}, "nas invalid IP []", "nas-2 "+own(b, 0)+" []", "node-"+c.ID.Short()[:6]+" invalid IP []")

	granted := b
	granted.Grant = &record.Grant{Serial: 9, Name: "nas", Addr4: netip.MustParseAddr("100.70.9.9"), Wanted: "nas", Routes: route}
	want("granted before", []Member{a, granted}, "nas-2 "+own(a, 0)+" []", "nas 100.70.9.9 []")
	granted.Record.Routes = append(prefixes("100.70.4.0/28"), route...)
	claiming := a
	claiming.Record.Routes = prefixes("100.70.3.0/28", "100.70.3.16/29", "100.70.3.0/26")
	want("routes that overlap none of one before", []Member{claiming, granted}, "nas-2 "+own(a, 0)+" [100.70.3.0/28]", "nas 100.70.9.9 [100.70.3.16/28 100.70.4.0/28]")
	granted.Record.Routes = nil
	want("granted routes are kept unoffered", []Member{claiming, granted}, "nas-2 "+own(a, 0)+" [100.70.3.0/28]", "nas 100.70.9.9 []")

	first, second := a, b
	first.Grant = &record.Grant{Serial: 4, Name: "nas", Wanted: "nas", Addr4: addrB}
	second.Grant = &record.Grant{Serial: 3, Name: "nas", Wanted: "nas", Addr4: addrB}
	want("of two grants the lower serial", []Member{first, second}, "nas-2 "+own(a, 0)+" []", "nas "+addrB.String()+" []")
	third := c
	third.Grant = &record.Grant{Serial: 5, Name: "nas-2", Wanted: "x"}
	want("a number that is granted is no way out", []Member{first, second, third}, "nas-3 "+own(a, 0)+" []", "nas "+addrB.String()+" []", "nas-2 "+own(c, 63)+" []")

	gone := first
	gone.State = Left
	want("who has left comes last", []Member{gone, b}, "nas-2 "+own(a, 0)+" []", "nas "+own(b, 0)+" []")
	empty := first
	empty.Grant = &record.Grant{Serial: 1}
	want("a grant that was taken back is none", []Member{b, empty}, "nas "+own(b, 0)+" []", "nas-2 "+own(a, 0)+" []")

	bad := c
	bad.Record.Routes = prefixes("100.70.0.0/20", "100.70.0.0/27", "0.0.0.0/0", "10.1.1.0/24", "fd00:1:2::/48", "fd00:1:2::/55", "fd00:9::/64",
		own(a, 0)+"/32", own(b, 0)+"/32", addr6Of(a.ID).String()+"/128", own(c, 63)+"/32")
	want("routes of no good form, or over an address", []Member{a, b, bad}, "nas "+own(a, 0)+" []", "nas-2 "+own(b, 0)+" []", "node-"+c.ID.Short()[:6]+" "+own(c, 63)+" []")
	bad.Record.Routes = prefixes("100.70.0.0/28", "fd00:1:2:1::/64", "100.70.0.3/32", "fd00:1:2::/56")
	want("routes of good form", []Member{bad}, "node-"+c.ID.Short()[:6]+" "+own(c, 63)+" [100.70.0.0/28 fd00:1:2:1::/64]")
}

func TestSharedKey(t *testing.T) {
	a, b, c, gone := claimant(identity.NodeID{1}, "a", 0), claimant(identity.NodeID{2}, "b", 0), claimant(identity.NodeID{3}, "c", 0), claimant(identity.NodeID{4}, "d", 0)
	for _, m := range []*Member{&a, &c, &gone} {
		m.Record.WireGuardKey = b.Record.WireGuardKey
	}
	c.Grant, gone.Grant, gone.State = &record.Grant{Serial: 7, Name: "c"}, &record.Grant{Serial: 1, Name: "d"}, Left
	want := []identity.NodeID{c.ID, c.ID, {}, c.ID}
	for i, m := range renew([]Member{a, b, c, gone}) {
		if m.KeyTakenBy != want[i] {
			t.Errorf("member %d: the key is said to be of %s, want %s", i, m.KeyTakenBy.Short(), want[i].Short())
		}
	}
}

// world is a random mesh for the search below. Its members come in the order of their admission.
type giveWorld struct {
	random  *rand.Rand
	members []Member
	suspect identity.NodeID // has let routes go that it was granted, perhaps
}

func (w *giveWorld) id() identity.NodeID {
	var id identity.NodeID
	for i := range id[:12] {
		id[i] = byte(w.random.Uint32())
	}
	switch w.random.IntN(4) {
	case 0:
		id[0], id[1] = 0, 0
	case 1:
		id[0], id[1] = 255, 255
	}
	return id
}

func (w *giveWorld) pick(n int) int { return w.random.IntN(n) }

func (w *giveWorld) name() string {
	return []string{"", "nas", "nas-2", "nas-3", "pi", "pi-2"}[w.pick(6)]
}

// route makes one that lies in the overlay, often beside others.
func (w *giveWorld) route() netip.Prefix {
	if w.pick(3) == 0 {
		raw := give6.Addr().As16()
		raw[6], raw[7], raw[15] = byte(w.pick(3)), byte(w.pick(3)), byte(w.pick(3))
		return netip.PrefixFrom(netip.AddrFrom16(raw), 56+w.pick(73)).Masked()
	}
	raw := give4.Addr().As4()
	raw[2], raw[3] = byte(w.pick(3)), byte(w.pick(256))
	return netip.PrefixFrom(netip.AddrFrom4(raw), 28+w.pick(5)).Masked()
}

// honest adds members, and has admins grant each what it has, some later than others, some not yet.
func (w *giveWorld) honest(n int) {
	for range n {
		m := claimant(w.id(), w.name(), w.pick(64))
		w.members = append(w.members, m)
		w.members = renew(w.members)
		for range w.pick(4) {
			last := &w.members[len(w.members)-1]
			last.Record.Routes = append(last.Record.Routes, w.anyRoute()) // often one that another wants too
		}
	}
	w.members = renew(w.members)
	serial := uint64(0)
	for _, i := range w.random.Perm(n) {
		if w.pick(5) == 0 {
			continue
		}
		if w.pick(3) == 0 { // somebody does not offer for a while what it was granted, and others may want that
			m := &w.members[w.pick(n)]
			m.Record.Routes, w.suspect = nil, m.ID
			w.members = renew(w.members)
		}
		serial++
		freeze(&w.members[i], serial)
		after := renew(w.members)
		if before, after := allGiven(w.members), allGiven(after); before != after {
			panic(fmt.Sprintf("the grant for %s changes\n%s\nto\n%s", w.members[i].Name, before, after))
		}
		w.members = after
	}
}

func allGiven(members []Member) (out string) {
	for _, m := range members {
		out += given(m) + "\n"
	}
	return out
}

// evil makes one member say anything but another's key, which it cannot prove.
func (w *giveWorld) evil(m *Member) {
	m.Record.Name = w.anyName()
	m.Record.Addr4 = w.anyAddr()
	m.Record.Routes = nil
	if m.Grant != nil && w.pick(2) == 0 {
		m.Record.Routes = slices.Clone(m.Grant.Routes) // once more what it was granted at some time
	}
	for range w.pick(record.MaxRoutes - len(m.Record.Routes)) {
		m.Record.Routes = append(m.Record.Routes, w.anyRoute())
	}
	if w.pick(4) == 0 {
		m.State = Left
	} else {
		m.State = Active
	}
}

func (w *giveWorld) anyName() string {
	if w.pick(2) == 0 {
		return w.members[w.pick(len(w.members))].Name
	}
	return w.name()
}

func (w *giveWorld) anyAddr() netip.Addr {
	if w.pick(2) == 0 {
		return w.members[w.pick(len(w.members))].Addr4
	}
	return identity.Addr4(give4, w.id(), 0)
}

// anyRoute hits what another has: its route, a part of that, what is around it, or its address.
func (w *giveWorld) anyRoute() netip.Prefix {
	victim := w.members[w.pick(len(w.members))]
	if len(victim.Routes) > 0 && w.pick(2) == 0 {
		r := victim.Routes[w.pick(len(victim.Routes))]
		return netip.PrefixFrom(r.Addr(), min(max(0, r.Bits()+w.pick(5)-2), r.Addr().BitLen())).Masked()
	}
	if victim.Addr4.IsValid() && w.pick(2) == 0 {
		return netip.PrefixFrom(victim.Addr4, 28+w.pick(5)).Masked()
	}
	return w.route()
}

// sybil makes a node with a key made for its purpose, and puts it among the others where it likes: the time of its admission is the word of its kind.
func (w *giveWorld) sybil() {
	m := claimant(w.id(), "", 0)
	w.evil(&m)
	if victim := w.members[w.pick(len(w.members))]; w.pick(3) > 0 && (victim.Addr4.IsValid() || len(victim.Routes) > 0) {
		target := victim.Addr4 // or inside a route of it
		if len(victim.Routes) > 0 && w.pick(2) == 0 {
			target = victim.Routes[0].Addr()
		}
		for range 10_000 {
			if probe, ok := identity.ProbeOf4(give4, m.ID, target); !ok || probe < identity.MaxProbes {
				break
			}
			m.ID = w.id()
		}
		if target.Is6() {
			m.ID = identity.NodeID(append(target.AsSlice()[6:], m.ID[10:]...))
		}
		m.Addr6, m.Record.ID = addr6Of(m.ID), m.ID
		if target.Is4() {
			m.Record.Addr4 = target
		}
	}
	// Who has no grant yields to all who have one even with their key, however it came by that.
	m.Record.WireGuardKey = w.members[w.pick(len(w.members))].Record.WireGuardKey
	w.members = slices.Insert(w.members, w.pick(len(w.members)+1), m)
}

// Whatever a member says, and however many nodes it lets in, dated back or not, with keys made for it: nobody else who was granted
// a name, an address, a route loses it, nor the use of its WireGuard key. Several rounds, so that one move can prepare another.
func TestNobodyTakesWhatIsGranted(t *testing.T) {
	held := 0
	for seed := range uint64(1500) {
		w := &giveWorld{random: rand.New(rand.NewPCG(seed, 5))}
		w.honest(3 + w.pick(8))
		thief := w.members[w.pick(len(w.members))].ID
		if !w.suspect.IsZero() && w.pick(2) == 0 {
			thief = w.suspect
		}
		before := make(map[identity.NodeID]string)
		for _, m := range w.members {
			if m.Granted() && m.ID != thief {
				before[m.ID] = kept(m)
				held++
				got := m
				got.Name, got.Addr4, got.Routes = m.Grant.Name, m.Grant.Addr4, nil
				if m.Record.Routes != nil {
					got.Routes = m.Grant.Routes
				}
				if kept(m) != given(got) {
					t.Fatalf("seed %d: a granted member has not what it was granted: %s, %+v", seed, given(m), m.Grant)
				}
			}
		}
		for round := range 6 {
			for i := range w.members {
				if m := &w.members[i]; before[m.ID] == "" && (m.ID == thief || m.Grant == nil && w.pick(2) == 0) {
					w.evil(m)
				}
			}
			for range w.pick(4) {
				w.sybil()
			}
			w.members = renew(w.members)
			for _, m := range w.members {
				if want, ok := before[m.ID]; ok && kept(m) != want {
					t.Fatalf("seed %d, round %d: %s had %s, has %s", seed, round, m.ID.Short(), want, given(m))
				}
			}
			wantDisjoint(t, w.members)
		}
	}
	if held < 5000 {
		t.Errorf("only %d members had anything to lose", held)
	}
}

// wantDisjoint wants that no thing is given twice.
func wantDisjoint(t *testing.T, members []Member) {
	t.Helper()
	names, addrs, keys := make(map[string]bool), make(map[netip.Addr]bool), make(map[[32]byte]bool)
	var routes []netip.Prefix
	for _, m := range members {
		if m.Name == "" || len(m.Name) > record.MaxName || names[m.Name] {
			t.Fatalf("the name %q is given twice, or none", m.Name)
		}
		if m.Addr4.IsValid() && (addrs[m.Addr4] || !isHost(give4, m.Addr4)) {
			t.Fatalf("the address %v is given twice, or is none", m.Addr4)
		}
		if m.KeyTakenBy.IsZero() && keys[m.Record.WireGuardKey] {
			t.Fatalf("two have the key of %s", m.Name)
		}
		names[m.Name], addrs[m.Addr4] = true, true
		keys[m.Record.WireGuardKey] = keys[m.Record.WireGuardKey] || m.KeyTakenBy.IsZero()
		routes = append(routes, m.Routes...)
	}
	for i, r := range routes {
		if slices.ContainsFunc(routes[i+1:], r.Overlaps) {
			t.Fatalf("the route %v overlaps another", r)
		}
		for addr := range maps.Keys(addrs) {
			if addr.IsValid() && r.Contains(addr) {
				t.Fatalf("the route %v contains the address %v", r, addr)
			}
		}
	}
}

// The tree over the bits says the same as comparing all with all.
func TestSpace(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		base := netip.MustParsePrefix("100.70.0.0/24")
		s, taken := newSpace(base), []netip.Prefix(nil)
		for range 40 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 70, 0, byte(random.IntN(256))}), 24+random.IntN(9)).Masked()
			want := !slices.ContainsFunc(taken, p.Overlaps)
			if got := s.free(p); got != want {
				t.Fatalf("%v is free: got %v, want %v; taken %v", p, got, want, taken)
			}
			if random.IntN(4) == 0 {
				s.take(p)
				taken = append(taken, p)
			}
		}
	}
	for _, none := range []netip.Prefix{{}, netip.MustParsePrefix("100.70.1.0/24"), netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd00::/64")} {
		if newSpace(netip.MustParsePrefix("100.70.0.0/24")).free(none) || newSpace(netip.Prefix{}).free(none) {
			t.Errorf("%v lies in the network", none)
		}
	}
}

// BenchmarkGive gives a thousand members what they have. The most is all routes that a record can offer, of each length.
func BenchmarkGive(b *testing.B) {
	for _, kind := range []string{"claimed", "granted", "most"} {
		b.Run(kind, func(b *testing.B) {
			w := &giveWorld{random: rand.New(rand.NewPCG(1, 1))}
			for range 1000 {
				m := claimant(w.id(), "node", 0)
				for kind == "most" && len(m.Record.Routes) < record.MaxRoutes {
					raw := give6.Addr().As16()
					raw[6], raw[7] = byte(w.pick(256)), byte(w.pick(256))
					m.Record.Routes = append(m.Record.Routes, netip.PrefixFrom(netip.AddrFrom16(raw), 56+w.pick(73)).Masked())
				}
				w.members = append(w.members, m)
			}
			give(give4, give6, w.members)
			for i := range w.members {
				if kind != "claimed" {
					freeze(&w.members[i], uint64(i+1))
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				renew(w.members)
			}
		})
	}
}
