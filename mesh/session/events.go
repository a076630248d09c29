package session

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

// EventKind tells the kinds of Event apart.
type EventKind byte

// The kinds of Event.
const (
	Up      EventKind = iota + 1 // a session with ID came up
	Down                         // it went down: Code, Reason, ByPeer
	Moved                        // its far side's address changed, or another connection carries it now
	Refused                      // ID refuses us with Code and Reason; told again only when they change or after an Up
	Greeted                      // ID has proved itself and this side has said hello: what is sent goes with that, and counts if ID accepts us
)

// Event is a change of state of the session with one node.
type Event struct {
	Kind    EventKind
	ID      identity.NodeID
	Remote  netip.AddrPort // Up, Moved
	Dialled bool           // Up, Moved: this side dialled
	Code    uint64         // Down, Refused
	Reason  string         // Down, Refused
	ByPeer  bool           // Down: the far side closed it and gave Code and Reason
	// Stranger: the far side has dialled, and is no member by the records. Should it become one, the session is told as Up once more.
	Stranger bool // Up, Down, Moved
}

// maxTold bounds the nodes of which is remembered what was told of their refusals: nodes that this one has dialled, and members.
const maxTold = 4096

// mailbox hands events to a reader that may be slow. It is bounded by the number of nodes, because per node only the
// newest state is kept: at most one Greeted, one Down, one Up, one Moved, one Refused, handed out in this order. A reader that
// sleeps through Up and Down sees the Down alone; one that sleeps through Down and Up sees both.
type mailbox struct {
	out  chan Event    // constant
	news chan struct{} // constant; capacity 1

	mu      sync.Mutex // guards the rest
	pending map[identity.NodeID]*pendingEvents
	order   []identity.NodeID
	told    map[identity.NodeID]told
}

// told is a refusal that the user has heard of.
type told struct {
	code   uint64
	reason string
}

type pendingEvents struct{ greeted, down, up, moved, refused *Event }

func newMailbox() *mailbox {
	return &mailbox{out: make(chan Event), news: make(chan struct{}, 1), pending: make(map[identity.NodeID]*pendingEvents), told: make(map[identity.NodeID]told)}
}

// put adds an event. It never blocks.
func (m *mailbox) put(e Event) {
	m.mu.Lock()
	switch refusal := (told{e.Code, e.Reason}); {
	case e.Kind == Up:
		delete(m.told, e.ID)
	case e.Kind == Refused && m.told[e.ID] == refusal:
		m.mu.Unlock()
		return
	case e.Kind == Refused:
		if len(m.told) >= maxTold {
			clear(m.told)
		}
		m.told[e.ID] = refusal
	}
	p := m.pending[e.ID]
	if p == nil {
		p = &pendingEvents{}
		m.pending[e.ID] = p
		m.order = append(m.order, e.ID)
	}
	switch e.Kind {
	case Greeted:
		p.greeted = &e
	case Up:
		p.up, p.moved = &e, nil
	case Down:
		p.down, p.up, p.moved = &e, nil, nil
	case Refused:
		p.refused = &e
	case Moved:
		if p.up != nil {
			p.up.Remote, p.up.Dialled, p.up.Stranger = e.Remote, e.Dialled, e.Stranger
		} else {
			p.moved = &e
		}
	}
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// refused tells the user when a member that we accept has refused us.
func (m *mailbox) refused(id identity.NodeID, err error) {
	if no, ok := errors.AsType[*refusal](err); ok {
		m.put(Event{Kind: Refused, ID: id, Code: no.Code, Reason: no.Reason})
		return
	}
	app, ok := errors.AsType[*quic.ApplicationError](err)
	if !ok || !app.Remote {
		return
	}
	switch code := uint64(app.ErrorCode); code {
	case CodeShutdown, CodeDuplicate, CodeReplaced, CodeUnresponsive, CodeUnneeded, CodeProtocol:
	default:
		m.put(Event{Kind: Refused, ID: id, Code: code, Reason: cleanReason(app.ErrorMessage)})
	}
}

// take returns the next event, if there is one.
func (m *mailbox) take() (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.order) == 0 {
		return Event{}, false
	}
	p := m.pending[m.order[0]]
	var e Event
	switch {
	case p.greeted != nil:
		e, p.greeted = *p.greeted, nil
	case p.down != nil:
		e, p.down = *p.down, nil
	case p.up != nil:
		e, p.up = *p.up, nil
	case p.moved != nil:
		e, p.moved = *p.moved, nil
	default:
		e, p.refused = *p.refused, nil
	}
	if *p == (pendingEvents{}) {
		delete(m.pending, m.order[0])
		m.order = m.order[1:]
	}
	return e, true
}

// run hands events to the reader of out until ctx is done.
func (m *mailbox) run(ctx context.Context) {
	for {
		e, ok := m.take()
		if !ok {
			select {
			case <-m.news:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case m.out <- e:
		case <-ctx.Done():
			return
		}
	}
}
