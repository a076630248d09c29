package mesh

import (
	"context"
	"io"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// Confirmed asks each active member whether it has the record of a key, in the version that is here or a newer one, and returns the answers of
// those that could be asked before ctx ended.
func (m *Mesh) Confirmed(ctx context.Context, key record.Key) map[identity.NodeID]bool {
	var members []identity.NodeID
	for _, member := range m.View().Members {
		if member.ID != m.self && member.State == roster.Active {
			members = append(members, member.ID)
		}
	}
	return m.confirmed(ctx, key, members)
}

// parallelAsks is how many members are asked at once.
const parallelAsks = 16

func (m *Mesh) confirmed(ctx context.Context, key record.Key, members []identity.NodeID) map[identity.NodeID]bool {
	type answer struct {
		id  identity.NodeID
		has bool
		err error
	}
	e := m.book.entry(key)
	answers, slots := make(chan answer), make(chan struct{}, parallelAsks)
	for _, id := range members {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			has, err := m.ask(ctx, id, e)
			answers <- answer{id, has, err}
		}()
	}
	confirmed := make(map[identity.NodeID]bool)
	for range members {
		if a := <-answers; a.err == nil {
			confirmed[a.id] = a.has
		}
	}
	return confirmed
}

// ask asks one member whether it has a record.
func (m *Mesh) ask(ctx context.Context, id identity.NodeID, e roster.Entry) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, syncOpen)
	defer cancel()
	conn, err := m.sessions.OpenSync(ctx, id)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := conn.Write(appendFrame(nil, frameAsk, appendEntry(nil, e))); err != nil {
		return false, err
	}
	f, err := readFrame(io.LimitReader(conn, 64), make([]byte, maxFrame))
	if err != nil {
		return false, err
	}
	if f.kind != frameHas {
		return false, unexpected(f)
	}
	return f.payload[0] == 1, nil
}
