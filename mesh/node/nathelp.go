package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/natprobe"
	"warren/nat/reach"
)

/* Helping to measure a NAT
 *
 * A member that measures has others send to it from a socket made for it, and answer there (natprobe.Help).
 *
 *	try   (session message, protocol 6):  version 2 (1) ‖ transaction (12) ‖ port (2, big endian) ‖ address (4 or 16)
 *	told  (the helper's answer):          version 3 (1) ‖ transaction (12) ‖ port of its socket (2)
 */

const (
	tryVersion  = 2
	toldVersion = 3
)

// helpOrder is one try that another member asked for.
type helpOrder struct {
	from identity.NodeID
	id   [12]byte
	addr netip.AddrPort
}

func encodeTry(id [12]byte, addr netip.AddrPort) []byte {
	raw := encodeDialBack(reach.Ask{ID: id, Addr: addr})
	raw[0] = tryVersion
	return raw
}

func encodeTold(t natprobe.Told) []byte {
	raw := append([]byte{toldVersion}, t.ID[:]...)
	return binary.BigEndian.AppendUint16(raw, t.Port)
}

func decodeTold(raw []byte) (natprobe.Told, error) {
	if len(raw) != 15 || raw[0] != toldVersion {
		return natprobe.Told{}, fmt.Errorf("%d bytes: %w", len(raw), errDialBack)
	}
	return natprobe.Told{ID: [12]byte(raw[1:13]), Port: binary.BigEndian.Uint16(raw[13:])}, nil
}

// helpMeasure does what other members ask for, until ctx ends.
func (m *member) helpMeasure(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-m.outlook.helps: // as many at once as maySend lets in within three seconds
			work.Go(func() { m.helpTry(ctx, h) })
		}
	}
}

// asked takes a message of protocol 6. It is called by session and must not block.
func (m *member) asked(from identity.NodeID, raw []byte) {
	switch {
	case len(raw) > 0 && raw[0] == tryVersion:
		m.takeTry(from, raw)
	case len(raw) > 0 && raw[0] == toldVersion:
		m.takeTold(raw)
	case len(raw) > 0 && raw[0] == unableVersion:
		m.takeUnable(from, raw)
	default:
		m.helpDialBack(from, raw)
	}
}

func (m *member) takeTry(from identity.NodeID, raw []byte) {
	raw = slices.Clone(raw)
	raw[0] = dialBackVersion // it says the same, and is answered in another way
	id, addr, err := decodeDialBack(raw)
	if err != nil || !m.active(from) || m.inOverlay(addr.Addr()) {
		m.dropped.add("dial back: refused")
		return
	}
	if !m.back.maySend(time.Now()) {
		m.dropped.add("dial back: too many")
		return
	}
	select {
	case m.outlook.helps <- helpOrder{from: from, id: id, addr: addr}:
	default:
		m.dropped.add("dial back: too many")
	}
}

// takeTold gives a helper's word to the measurement that asked for help: nobody else knows the transaction.
func (m *member) takeTold(raw []byte) {
	told, err := decodeTold(raw)
	if err != nil {
		m.dropped.add("dial back: refused")
		return
	}
	m.outlook.mu.Lock()
	waiting := m.outlook.waiting[told.ID]
	m.outlook.mu.Unlock()
	select {
	case waiting <- told:
	default: // nobody waits, or it was said before
	}
}

// helpTry sends for another member, and answers it, for three seconds.
func (m *member) helpTry(ctx context.Context, h helpOrder) {
	listen := func() (net.PacketConn, error) { return listenFamily(h.addr.Addr().Is4()) }
	err := natprobe.Help(ctx, listen, h.id, h.addr, func(port uint16) {
		if err := m.sessions.Send(h.from, session.ProtoAsk, encodeTold(natprobe.Told{ID: h.id, Port: port})); err != nil {
			m.dropped.add("dial back: not answered")
		}
	})
	if err != nil && ctx.Err() == nil {
		m.log.Debug("no help", "peer", m.nameOf(h.from), "error", err)
	}
}
