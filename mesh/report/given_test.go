package report

import (
	"net/netip"
	"slices"
	"testing"

	"warren/mesh/record"
	"warren/mesh/roster"
)

func TestNotGiven(t *testing.T) {
	prefix := netip.MustParsePrefix
	const called = "this node is called a-2"
	for name, tt := range map[string]struct {
		change func(self, b *roster.Member)
		want   []string
	}{
		"all is well": {func(self, b *roster.Member) {
			self.Record.Name, self.Record.Addr4, self.Record.Routes = "a", self.Addr4, []netip.Prefix{prefix("100.70.9.0/28")}
			self.Routes = self.Record.Routes
		}, nil},
		"the name is another's": {func(self, b *roster.Member) { self.Name, self.Record.Name, b.Name = "a-2", "a", "a" },
			[]string{called + ", for another member has the name a (ID aiaaaaaaaa)"}},
		"another name is wished for": {func(self, b *roster.Member) {
			self.Name, self.Record.Name, self.Grant = "a-2", "x", &record.Grant{Name: "a-2", Wanted: "a"}
			b.Admin = true
		}, []string{called + " until an admin's agent runs that gives it the name x (admins: b)"}},
		"with no admin": {func(self, b *roster.Member) {
			self.Name, self.Record.Name, self.Grant = "a-2", "x", &record.Grant{Name: "a-2", Wanted: "a"}
		}, []string{called + " until an admin's agent runs that gives it the name x (the mesh has no admin any more)"}},
		"the name has become free": {func(self, b *roster.Member) {
			self.Name, self.Record.Name, self.Grant = "a-2", "a", &record.Grant{Name: "a-2", Wanted: "a"}
		}, nil},
		"the address is another's": {func(self, b *roster.Member) { self.Record.Addr4, self.Addr4 = b.Addr4, netip.Addr{} },
			[]string{"this node has no IPv4 address in the overlay: 100.70.0.2, which it asks for, is where b has its address 100.70.0.2"}},
		"the address is in another's route": {func(self, b *roster.Member) {
			self.Record.Addr4, self.Addr4 = netip.MustParseAddr("100.70.4.4"), netip.Addr{}
			b.Routes = []netip.Prefix{prefix("100.70.4.0/28")}
		}, []string{"this node has no IPv4 address in the overlay: 100.70.4.4, which it asks for, is where b has the route 100.70.4.0/28"}},
		"another address was given": {func(self, b *roster.Member) { self.Record.Addr4 = b.Addr4 }, nil},
		"routes are another's": {func(self, b *roster.Member) {
			self.Record.Routes = []netip.Prefix{prefix("100.70.0.2/32"), prefix("100.70.4.0/29"), prefix("100.70.5.1/32"), prefix("100.70.6.0/28")}
			self.Routes = []netip.Prefix{prefix("100.70.6.0/28")}
			b.Routes, b.Grant = []netip.Prefix{prefix("100.70.4.0/28")}, &record.Grant{Routes: []netip.Prefix{prefix("100.70.5.0/28")}}
		}, []string{
			"other members do not reach 100.70.0.2/32 through this node: it is where b has its address 100.70.0.2",
			"other members do not reach 100.70.4.0/29 through this node: it is where b has the route 100.70.4.0/28",
			"other members do not reach 100.70.5.1/32 through this node: it is where b has the route 100.70.5.0/28",
		}},
		"a route has the node's own address in it": {func(self, b *roster.Member) { self.Record.Routes = []netip.Prefix{prefix("100.70.0.0/31")} },
			[]string{"other members do not reach 100.70.0.0/31 through this node: it is where a has its address 100.70.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := meshOf(func(m *Mesh) {
				m.Records.Prefix4 = prefix("100.70.0.0/16")
				tt.change(&m.Records.Members[0], &m.Records.Members[1])
			})
			if got := Status(Agent{Mesh: m, Now: now}).Warnings; !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
