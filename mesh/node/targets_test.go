package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/session"
)

// crowd plans the targets of n nodes, all of which know all, and sessions as far as all targets that stand behind no other are dialled.
type crowd struct {
	members  []mesh.Member
	sessions map[identity.NodeID]map[identity.NodeID]bool
	dead     map[identity.NodeID]bool
}

func newCrowd(n int, anchor func(i int) bool) *crowd {
	c := &crowd{sessions: make(map[identity.NodeID]map[identity.NodeID]bool), dead: make(map[identity.NodeID]bool)}
	for i := range n {
		m := testMember(1)
		m.ID = identity.NodeID{byte(i * 37), byte(i * 37 >> 8), byte(i), byte(i >> 8), 1}
		if m.Record.Endpoints = nil; anchor(i) {
			m.Record.Endpoints = testMember(1, fmt.Sprintf("203.0.%d.%d:9277", i/200, i%200+1)).Record.Endpoints
		}
		m.Record.ID, m.Record.Instance = m.ID, [8]byte{byte(i), byte(i >> 8)}
		c.members = append(c.members, m)
		c.sessions[m.ID] = make(map[identity.NodeID]bool)
	}
	return c
}

func (c *crowd) facts(self identity.NodeID) facts {
	f := testFacts(c.members...)
	f.self, f.now = self, time.Unix(1000, 0)
	for id := range c.sessions[self] {
		f.sessions[id] = sessionFacts{rtt: time.Millisecond}
	}
	return f
}

// round lets everybody dial what it plans. It returns how many sessions are new.
func (c *crowd) round() (fresh int) {
	plans := make(map[identity.NodeID][]session.Target)
	for _, m := range c.members {
		if !c.dead[m.ID] {
			plans[m.ID] = planTargets(c.facts(m.ID))
		}
	}
	for _, m := range c.members {
		all := plans[m.ID]
		for _, one := range all {
			waits := slices.ContainsFunc(all, func(o session.Target) bool { return o.ID == one.Behind }) && !c.dead[one.Behind]
			if !c.dead[one.ID] && !waits && !c.sessions[m.ID][one.ID] {
				c.sessions[m.ID][one.ID], c.sessions[one.ID][m.ID] = true, true
				fresh++
			}
		}
	}
	return fresh
}

// However many anchors there are, each dials few and has few sessions, and as many in the next round: nobody dials what it then drops.
func TestEachHasFewSessions(t *testing.T) {
	for _, n := range []int{20, 40, 100} {
		c := newCrowd(n, func(int) bool { return true })
		c.round()
		again, most, sum := c.round(), 0, 0
		for _, m := range c.members {
			most, sum = max(most, len(c.sessions[m.ID])), sum+len(c.sessions[m.ID])
			if got := len(planTargets(c.facts(m.ID))); got > 9+maxDetours {
				t.Errorf("of %d: got %d targets of one node, want the neighbours, one by chance and detours", n, got)
			}
		}
		t.Logf("%d anchors: at most %d sessions of one, %.1f on average, %d detours", n, most, float64(sum)/float64(n), again)
		if most > 20 || sum > 11*n || again > n/5 {
			t.Errorf("of %d: got %d sessions of one node and %d of all, %d after the first round", n, most, sum, again)
		}
	}
}

// Nodes that strangers cannot reach are spread over the anchors, and do not all hang on those with the smallest IDs.
func TestOthersAreSpreadOverTheAnchors(t *testing.T) {
	c := newCrowd(200, func(i int) bool { return i%5 == 0 })
	self := c.members[1].ID
	first := 0
	for _, one := range planTargets(c.facts(self)) {
		if one.Behind.IsZero() {
			first++
		}
	}
	if first < WantedAnchors || first > 8 {
		t.Errorf("got %d anchors dialled at once, want enough and no more than eight", first)
	}
	c.round()
	most := 0
	for i := 0; i < 200; i += 5 {
		most = max(most, len(c.sessions[c.members[i].ID]))
	}
	// 160 others dial eight of 40 anchors each before three have answered, if all answer at once.
	if most > 80 {
		t.Errorf("got %d sessions of one anchor, want 80 at most", most)
	}
}

// When half of the anchors are dead the others stay one mesh: who stands behind a dead one takes its place.
func TestTheLivingStayTogether(t *testing.T) {
	for _, n := range []int{20, 40, 100} {
		c := newCrowd(n, func(int) bool { return true })
		for i, m := range c.members {
			c.dead[m.ID] = i%2 == 1 || i%3 == 0
		}
		for c.round() > 0 {
		}
		var start identity.NodeID
		living := 0
		for _, m := range c.members {
			if !c.dead[m.ID] {
				start = m.ID
				living++
			}
		}
		seen := map[identity.NodeID]bool{start: true}
		for queue := []identity.NodeID{start}; len(queue) > 0; queue = queue[1:] {
			for next := range c.sessions[queue[0]] {
				if !seen[next] {
					seen[next] = true
					queue = append(queue, next)
				}
			}
		}
		if len(seen) != living {
			t.Errorf("of %d: got %d of %d living ones in one mesh", n, len(seen), living)
		}
	}
}

// A peer to which no two members lead is reached by one that has a session with it.
func TestDetours(t *testing.T) {
	c := newCrowd(300, func(i int) bool { return i < 299 })
	last := &c.members[299]
	last.ID = identity.NodeID{0xff, 0xff}
	last.Record.Anchors = []identity.NodeID{c.members[7].ID}
	c.sessions[last.ID] = make(map[identity.NodeID]bool)
	self := c.members[100].ID
	f := c.facts(self)
	if got := planDetours(f); len(got) != 0 {
		t.Errorf("without a session: got %d detours, want none yet", len(got))
	}
	f.sessions[c.members[101].ID] = sessionFacts{}
	got := planDetours(f)
	if len(got) != maxDetours {
		t.Errorf("got %d detours, want %d", len(got), maxDetours)
	}
	f.sessions[last.Record.Anchors[0]] = sessionFacts{}
	f.view = mesh.NewView(f.view.Prefix4, f.view.Prefix6, append(c.members[:299:299], *last)...)
	for _, m := range c.members[:299] {
		f.peers[m.ID] = peerFacts{}
	}
	for _, id := range planDetours(f) {
		if id == last.Record.Anchors[0] {
			t.Error("got a detour to an anchor that there is a session with")
		}
	}
}
