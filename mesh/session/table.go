package session

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
)

// duplicateGrace is how long the lesser of two connections dialled at the same time goes on receiving.
const duplicateGrace = time.Second

// table says which link serves which peer, and tells changes as events.
//
// Two nodes that dial each other at once get two links. The one dialled by the smaller ID is to stay, and the
// smaller ID sees to it: the newest link is used at first, because it is certainly alive; when the preferred link answers a
// check, it is used again and the other is closed. That the larger ID does nothing of the kind keeps the two from
// closing one each. A link from another instance of the same node replaces whatever there was: that process is gone.
type table struct {
	self   identity.NodeID // constant
	events *mailbox        // constant
	lane   *lane           // constant

	mu    sync.Mutex // guards the rest
	peers map[identity.NodeID]*peer
	early map[identity.NodeID]*link // greeted and not answered yet, of nodes without a session
	came  chan struct{}             // closed, and replaced, when there is a session with another node
}

// peer is a node with at least one link.
type peer struct {
	current *link // carries what is sent
	spare   *link // the other one of a simultaneous dial, or nil
}

// closing is a link that add found to be superfluous.
type closing struct {
	link   *link
	code   uint64
	reason string
}

func newTable(self identity.NodeID, events *mailbox, lane *lane) *table {
	return &table{self: self, events: events, lane: lane, peers: make(map[identity.NodeID]*peer), early: make(map[identity.NodeID]*link), came: make(chan struct{})}
}

// add enters a new link. The caller closes those that are superfluous, and settles: of two links with one peer, the preferred
// one is checked and then kept (see settle); it is nil when there is nothing to settle.
func (t *table) add(l *link) (superfluous []closing, settle *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.publish()
	p := t.peers[l.id]
	if p == nil {
		t.peers[l.id] = &peer{current: l}
		close(t.came)
		t.came = make(chan struct{})
		t.events.put(upOf(l))
		return nil, nil
	}
	old := p.current
	switch {
	case old.instance != l.instance || old.dialled == l.dialled:
		reason := "a newer session took over"
		if old.instance != l.instance {
			reason = "another process of this node took over"
		}
		superfluous = append(superfluous, closing{old, CodeReplaced, reason})
		if p.spare != nil && (old.instance != l.instance || p.spare.dialled == l.dialled) {
			superfluous = append(superfluous, closing{p.spare, CodeReplaced, reason})
			p.spare = nil
		}
		p.current = l
		t.events.put(Event{Kind: Down, ID: l.id, Code: CodeReplaced, Reason: reason, Stranger: old.stranger.Load()})
		t.events.put(upOf(l))
	default:
		if p.spare != nil {
			superfluous = append(superfluous, closing{p.spare, CodeReplaced, "a newer session took over"})
		}
		p.current, p.spare = l, old
		if old.stranger.Load() && !l.stranger.Load() {
			t.events.put(upOf(l)) // what was told of a stranger's session is told of as one's own from here on
		} else {
			t.moved(l)
		}
	}
	if p.spare != nil && t.self.Compare(l.id) < 0 {
		settle = p.current
		if !settle.dialled {
			settle = p.spare
		}
	}
	return superfluous, settle
}

// greet enters a link on which this side has said hello. It reports false if there is a session with the node, or another such link.
func (t *table) greet(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers[l.id] != nil || t.early[l.id] != nil {
		return false
	}
	t.early[l.id] = l
	t.events.put(Event{Kind: Greeted, ID: l.id, Dialled: true})
	return true
}

// ungreet takes it out again.
func (t *table) ungreet(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.early[l.id] == l {
		delete(t.early, l.id)
	}
}

// greeted returns the links that wait for their hello; the one with a node if id is not zero.
func (t *table) greeted(id identity.NodeID) (all []*link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.early {
		if id.IsZero() || l.id == id {
			all = append(all, l)
		}
	}
	return all
}

// keep makes l, which is alive, the current link of its peer and returns the other one, if there is one.
func (t *table) keep(l *link) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[l.id]
	if p == nil || p.spare == nil || p.current != l && p.spare != l {
		return nil
	}
	if p.current != l {
		p.current, p.spare = l, p.current
		t.moved(l)
	}
	return p.spare
}

// remove takes out a link that has ended. It returns the link that serves the peer from now on when that changed: the
// caller checks it.
func (t *table) remove(l *link, cause error) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.publish()
	p := t.peers[l.id]
	switch {
	case p == nil:
	case p.spare == l:
		p.spare = nil
	case p.current == l && p.spare != nil:
		p.current, p.spare = p.spare, nil
		t.moved(p.current)
		return p.current
	case p.current == l:
		delete(t.peers, l.id)
		code, reason, byPeer := closeCause(cause)
		t.events.put(Event{Kind: Down, ID: l.id, Code: code, Reason: reason, ByPeer: byPeer, Stranger: l.stranger.Load()})
	}
	return nil
}

// moved tells that l carries the session now; mu is held.
func (t *table) moved(l *link) {
	t.events.put(Event{Kind: Moved, ID: l.id, Remote: l.remote, Dialled: l.dialled, Stranger: l.stranger.Load()})
}

func upOf(l *link) Event {
	return Event{Kind: Up, ID: l.id, Remote: l.remote, Dialled: l.dialled, Stranger: l.stranger.Load()}
}

// tell tells once more that there is a session with a node, if there is: it has become a member.
func (t *table) tell(id identity.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[id]; p != nil {
		t.events.put(upOf(p.current))
	}
}

// publish tells the lane the addresses of all links; mu is held.
func (t *table) publish() {
	known := make(map[netip.AddrPort]bool, len(t.peers))
	for _, p := range t.peers {
		known[p.current.remote] = true
		if p.spare != nil {
			known[p.spare.remote] = true
		}
	}
	if !maps.Equal(known, *t.lane.known.Load()) {
		t.lane.known.Store(&known)
	}
}

// refresh looks whether the far sides of links have moved (RFC 9000, section 9).
func (t *table) refresh() {
	remotes := make(map[*link]netip.AddrPort)
	for _, l := range t.links(identity.NodeID{}) {
		remotes[l] = addrPortOf(l.conn.RemoteAddr()) // which may wait for locks of the connection's
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.publish()
	for _, p := range t.peers {
		if now, ok := remotes[p.spare]; ok {
			p.spare.remote = now
		}
		if now, ok := remotes[p.current]; ok && now != p.current.remote {
			p.current.remote = now
			t.moved(p.current)
		}
	}
}

// any reports whether there is a session.
func (t *table) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.peers) > 0
}

// nextCame returns a channel that is closed when there is a session with another node.
func (t *table) nextCame() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.came
}

// current returns the links that serve the peers.
func (t *table) current() []*link {
	t.mu.Lock()
	defer t.mu.Unlock()
	links := make([]*link, 0, len(t.peers))
	for _, p := range t.peers {
		links = append(links, p.current)
	}
	return links
}

// link returns the link that serves a node, or nil.
func (t *table) link(id identity.NodeID) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[id]; p != nil {
		return p.current
	}
	return nil
}

// links returns all links, spare ones included; of one peer only if id is not zero.
func (t *table) links(id identity.NodeID) []*link {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*link
	for _, p := range t.peers {
		if !id.IsZero() && p.current.id != id {
			continue
		}
		all = append(all, p.current)
		if p.spare != nil {
			all = append(all, p.spare)
		}
	}
	return all
}
