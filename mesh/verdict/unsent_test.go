package verdict

import (
	"net/netip"
	"testing"
	"time"
)

func TestUnsentNow(t *testing.T) {
	ago := func(s float64) time.Time { return before(time.Duration(s * float64(time.Second))) }
	for _, tt := range []struct {
		name string
		u    Unsent
		want bool
	}{
		{"now", Unsent{Count: 849, First: ago(20), Last: ago(0)}, true},
		{"asked seldom", Unsent{Count: 3, First: ago(90), Last: ago(60)}, true},
		{"long ago", Unsent{Count: 849, First: ago(200), Last: ago(100)}, false},
		{"passes again", Unsent{Count: 849, First: ago(60), Last: ago(20), Sent: ago(19)}, false},
		{"some packets pass", Unsent{Count: 9, First: ago(60), Last: ago(2), Sent: ago(1)}, true},
		{"once among many", Unsent{Count: 1, First: ago(2), Last: ago(2), Sent: ago(1)}, false},
		{"passed before", Unsent{Count: 1, First: ago(2), Last: ago(2), Sent: ago(9)}, true},
	} {
		tt.u.To = netip.MustParseAddrPort("203.0.113.1:9277")
		if got := len(UnsentNow(judgedAt, []Unsent{tt.u})) == 1; got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

// What passes to the same host, or elsewhere, says something of what was refused before.
func TestUnsentBeside(t *testing.T) {
	ago := func(s int) time.Time { return before(time.Duration(s) * time.Second) }
	at := netip.MustParseAddrPort
	u := Unsent{To: at("203.0.113.1:9277"), Count: 9, First: ago(60), Last: ago(20)}
	for to, want := range map[string]int{"203.0.113.1:40000": 0, "203.0.113.2:9277": 1} {
		passes := Unsent{To: at(to), Count: 1, First: ago(100), Last: ago(100), Sent: ago(1)}
		if got := UnsentNow(judgedAt, []Unsent{passes, u}); len(got) != want {
			t.Errorf("%s passes: got %v, want %d", to, got, want)
		}
		if got := UnsentNow(judgedAt.Add(25*time.Second), []Unsent{passes, u}); len(got) != 0 {
			t.Errorf("%s passes, later: got %v, want none", to, got)
		}
	}
}

// What this machine refuses to send is the reason, wherever the network would be blamed else.
func TestRefusedHere(t *testing.T) {
	there, anchor := netip.MustParseAddrPort("198.51.100.7:9277"), netip.MustParseAddrPort("203.0.113.1:9277")
	refused := func(to netip.AddrPort) func(*Evidence) {
		return func(e *Evidence) {
			e.Here.Unsent = []Unsent{{To: to, Count: 849, First: before(20 * time.Second), Last: before(0)}}
		}
	}
	atPeer := func(e *Evidence) { e.There.At = []netip.AddrPort{there} }
	direct := func(e *Evidence) {
		e.Path, e.Way, e.Keyed, e.Heard = Path{Kind: DirectPath}, true, before(time.Minute), before(time.Second)
	}
	tcp := func(e *Evidence) { direct(e); e.Path.TCP, e.UDP.State = true, UDPBlocked }
	tcpThere := func(e *Evidence) { direct(e); e.Path.TCP, e.There.NAT.UDPBlocked = true, true }
	alone := func(e *Evidence) { e.Path, e.Sessions = Path{}, 0 }
	says := []string{"this machine's firewall refuses UDP to", "operation not permitted, 849 times", "let UDP out to port 9277 in this machine's own firewall"}
	for _, tt := range []struct {
		name    string
		changes []func(*Evidence)
		kind    Kind
	}{
		{"by a stream", []func(*Evidence){tcp, refused(anchor)}, FirewallHere},
		{"no session", []func(*Evidence){alone, refused(anchor)}, FirewallHere},
		{"relayed, tried in vain", []func(*Evidence){viaRelay, func(e *Evidence) { tried(e, pair("host", 9, 0, 0)) }, atPeer, refused(there)}, FirewallHere},
		{"another one is refused", []func(*Evidence){viaRelay, func(e *Evidence) { tried(e, pair("host", 9, 0, 0)) }, atPeer, refused(anchor)}, Unexplained},
		{"by a stream of the peer, which hears nothing by UDP", []func(*Evidence){tcpThere, atPeer, refused(there)}, FirewallHere},
		{"by a stream of the peer, and another one is refused", []func(*Evidence){tcpThere, atPeer, refused(anchor)}, UDPBlockedThere},
		{"direct", []func(*Evidence){direct, atPeer, refused(there)}, Direct},
	} {
		e := evidenceOf(func(e *Evidence) {
			for _, change := range tt.changes {
				change(e)
			}
		})
		want := says
		if tt.kind != FirewallHere {
			want = nil
		}
		t.Run(tt.name, func(t *testing.T) { check(t, Judge(e), tt.kind, want) })
	}
	static := JudgeStatic(StaticPeer{Now: judgedAt, Name: "phone", Endpoint: "a:1", Addr: there, TxBytes: 148, Unsent: []Unsent{{To: there, By: ByRouting, Count: 2}}})
	check(t, static, FirewallHere, []string{"this machine's routing refuses UDP to 198.51.100.7:9277", "ip route get 198.51.100.7"})
}

func TestRefusesInWords(t *testing.T) {
	at := func(port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), port)
	}
	first := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, list := range map[string][]Unsent{
		"this machine's firewall refuses UDP to 203.0.113.1:1 (operation not permitted, 7 times since 03:04:05 UTC)": {{To: at(1), Count: 7, First: first}},
		"this machine's routing refuses UDP to 203.0.113.1:1 (a route of type unreachable (ip rule of priority 98, routing table 52), 7 times since 03:04:05 UTC)": {
			{To: at(1), By: ByRouting, Why: RoutedAway("unreachable", 52, 98), Count: 7, First: first}},
		"this machine's routing refuses UDP to 203.0.113.1:2 (a rule of type prohibit (ip rule of priority 99), 7 times since 03:04:05 UTC)": {
			{To: at(2), By: ByRouting, Why: RoutedAway("prohibit", 0, 99), Count: 7, First: first}},
		"this machine's firewall refuses UDP to 203.0.113.1:1 and one more address (operation not permitted, 7 times since 03:04:05 UTC)": {
			{To: at(1), Count: 7, First: first}, {To: at(2)}},
		"this machine's firewall refuses some packets, perhaps large ones, to 203.0.113.1:1 and 2 more addresses (operation not permitted, 7 times since 03:04:05 UTC)": {
			{To: at(1), Count: 7, First: first, Sent: first.Add(1)}, {To: at(2)}, {To: at(3)}, {To: at(3), By: ByRouting}},
	} {
		if got := (Refuses{list}).Words(nil); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
