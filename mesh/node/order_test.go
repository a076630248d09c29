package node

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/streams"
)

// Where the packets for a member go follows from what is so now, in whatever order it was learned: attempts that failed before or after a
// stream came, streams of which one ends, sessions that come by either, or not at all.
func TestWayFollowsFromWhatIsSo(t *testing.T) {
	member, far := id(2), netip.MustParseAddrPort("203.0.113.2:9277")
	virtual := [...]netip.AddrPort{netip.MustParseAddrPort("[100::300:0:0:1]:9"), netip.MustParseAddrPort("[100::300:0:0:2]:9")}
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1), testMember(2))
		a.run(t)
		time.Sleep(time.Second)
		random := rand.New(rand.NewPCG(7, 7))
		path, u := nat.Event{Peer: member}, underlay{sessions: map[identity.NodeID]sessionFacts{}}
		for step := range 3000 {
			_, up := u.sessions[member]
			switch random.IntN(7) {
			case 0: // an attempt that failed, or whatever else leaves no path
				path.Path = nat.Path{}
				a.paths <- path
			case 1:
				path.Path = nat.Path{Kind: nat.Direct, Addr: far}
				a.paths <- path
			case 2:
				path.Path = nat.Path{Kind: nat.Relayed, Addr: netip.MustParseAddrPort("[100::200:0:0:7]:9"), Via: id(3)}
				a.paths <- path
			case 3, 4:
				u.streams.State = [...]streams.State{streams.Open, streams.Trying, streams.Blocked, streams.Returning}[random.IntN(4)]
				u.streams.Ends = nil
				if end := random.IntN(5); end > 0 {
					u.streams.Ends = map[identity.NodeID]streams.End{member: {Virtual: virtual[end%2], Accepted: end > 2}}
				}
				a.set(func(w *twins) { w.udp = u.streams }, a.streams)
			case 5:
				at := [...]netip.AddrPort{far, virtual[0], virtual[1]}[random.IntN(3)]
				kind := session.Up
				if up && random.IntN(2) == 0 {
					kind = session.Moved
				}
				u.sessions[member] = sessionFacts{remote: at}
				a.sessions <- session.Event{Kind: kind, ID: member, Remote: at}
			case 6:
				if up {
					delete(u.sessions, member)
					a.sessions <- session.Event{Kind: session.Down, ID: member, Code: session.CodeLost}
				}
			}
			synctest.Wait()
			a.mu.Lock()
			got := a.ways[member].Addr
			a.mu.Unlock()
			if want := planWay(member, path, u).addr; got != want {
				t.Fatalf("step %d, path %+v, streams %+v, session %+v: packets go to %v, want %v", step, path.Path, u.streams.Ends, u.sessions, got, want)
			}
		}
	})
}
