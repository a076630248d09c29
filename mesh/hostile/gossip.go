//go:build hostile

package hostile

import (
	"context"
	"encoding/binary"
	"math"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/session"
)

// Attacks by memberlist's own messages.

// packed is a MessagePack map, as memberlist writes its messages: names of fields, and values that are numbers, texts or bytes.
func packed(kind byte, fields ...any) []byte {
	out := []byte{kind, 0x80 | byte(len(fields)/2)}
	text := func(b []byte) {
		out = append(out, 0xda)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	for _, f := range fields {
		switch f := f.(type) {
		case string:
			text([]byte(f))
		case []byte:
			text(f)
		case uint32:
			out = binary.BigEndian.AppendUint32(append(out, 0xce), f)
		}
	}
	return out
}

// address is where memberlist takes a node to be.
func address(id identity.NodeID) []byte { return slices.Concat([]byte{0xfd}, id[:15]) }

// gossipLies says of everybody, to everybody, that it is dead, suspect or alive elsewhere, with the greatest incarnations that there are, and
// of nodes that are none that they are alive.
func gossipLies(ctx context.Context, s *strike) {
	const suspect, alive, dead = 3, 4, 5
	self := s.State.NodeID().String()
	pace(ctx, fullSpeed, func(i int) bool {
		all := s.others()
		if len(all) < 2 {
			return true
		}
		of, to := all[s.dice.upto(len(all))], all[i%len(all):i%len(all)+1]
		incarnation := []uint32{math.MaxUint32, math.MaxUint32 - 1, 1 << 31, uint32(s.dice.upto(1 << 30)), 0}[s.dice.upto(5)]
		var message []byte
		switch i % 5 {
		case 0:
			message = packed(dead, "Incarnation", incarnation, "Node", of.ID.String(), "From", self)
		case 1:
			message = packed(suspect, "Incarnation", incarnation, "Node", of.ID.String(), "From", all[s.dice.upto(len(all))].ID.String())
		case 2:
			message = packed(alive, "Incarnation", incarnation, "Node", of.ID.String(), "Addr", address(of.ID), "Port", uint32(1), "Meta", []byte{}, "Vsn", []byte{1, 5, 2, 0, 0, 0})
		case 3:
			made := identity.NodeID(s.dice.noise(32))
			message = packed(alive, "Incarnation", incarnation, "Node", made.String(), "Addr", address(made), "Port", uint32(1), "Meta", []byte{}, "Vsn", []byte{1, 5, 2, 0, 0, 0})
		case 4: // dead in its own name, as one says who leaves
			message = packed(dead, "Incarnation", incarnation, "Node", of.ID.String(), "From", of.ID.String())
		}
		if i%11 == 10 {
			message = append([]byte{[]byte{0, 1, 2, 6, 7, 8, 11, 12}[s.dice.upto(8)]}, s.dice.noise(60)...)
		}
		s.send(to, session.ProtoGossip, message)
		return true
	})
}
