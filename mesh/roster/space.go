package roster

import "net/netip"

// space is which parts of an overlay network are taken: a tree over the bits of addresses, so that a thousand members with a route of
// each length cost no more than the bits that they have.
type space struct {
	base  netip.Prefix
	spots []spot // the first is base itself; a spot is there because something is taken at it or below
}

type spot struct {
	below [2]int32 // 0: none
	taken bool
}

func newSpace(base netip.Prefix) *space {
	return &space{base: base.Masked(), spots: make([]spot, 1)}
}

// covers reports whether a prefix lies inside the network.
func (s *space) covers(p netip.Prefix) bool {
	return s.base.IsValid() && p.IsValid() && p.Bits() >= s.base.Bits() && s.base.Contains(p.Addr())
}

// free reports whether a prefix lies inside the network and overlaps nothing that is taken, neither way.
func (s *space) free(p netip.Prefix) bool {
	if !s.covers(p) {
		return false
	}
	at, raw := int32(0), p.Addr().AsSlice()
	for i := s.base.Bits(); i < p.Bits(); i++ {
		if s.spots[at].taken {
			return false
		}
		if at = s.spots[at].below[bit(raw, i)]; at == 0 {
			return true
		}
	}
	return s.spots[at] == spot{}
}

// take takes a prefix that lies inside the network, free or not.
func (s *space) take(p netip.Prefix) {
	at, raw := int32(0), p.Addr().AsSlice()
	for i := s.base.Bits(); i < p.Bits(); i++ {
		next := &s.spots[at].below[bit(raw, i)]
		if *next == 0 {
			*next = int32(len(s.spots))
			at = *next
			s.spots = append(s.spots, spot{})
			continue
		}
		at = *next
	}
	s.spots[at].taken = true
}

func bit(raw []byte, i int) byte { return raw[i/8] >> (7 - i%8) & 1 }
