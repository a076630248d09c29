package rings

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"warren/mesh/identity"
)

func some(n int) (ids []identity.NodeID) {
	for i := range n {
		ids = append(ids, sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i))))
	}
	return ids
}

// far is how many sessions lie between a member and the one that is furthest, and how many members are further than three.
func far(r *Rings, from identity.NodeID) (most, beyond int) {
	at := map[identity.NodeID]int{from: 0}
	for queue := []identity.NodeID{from}; len(queue) > 0; queue = queue[1:] {
		for _, next := range r.Neighbours(queue[0]) {
			if _, known := at[next]; !known {
				at[next] = at[queue[0]] + 1
				most = max(most, at[next])
				if at[next] > 3 {
					beyond++
				}
				queue = append(queue, next)
			}
		}
	}
	if len(at) != r.Len() {
		return -1, r.Len() - len(at)
	}
	return most, beyond
}

// However many members there are, each has eight neighbours at most, both sides of a pair agree on it, and all are near each other.
func TestFewNeighboursAndAllNear(t *testing.T) {
	for _, tt := range []struct{ n, far, beyond int }{{2, 1, 0}, {9, 1, 0}, {10, 2, 0}, {20, 3, 0}, {40, 3, 0}, {100, 4, 5}, {1000, 5, 700}} {
		r := New(some(tt.n))
		for n, id := range some(tt.n) {
			neighbours := r.Neighbours(id)
			if len(neighbours) > 2*Count {
				t.Fatalf("of %d: got %d neighbours, want %d at most", tt.n, len(neighbours), 2*Count)
			}
			for _, other := range neighbours {
				if !slices.Contains(r.Neighbours(other), id) {
					t.Fatalf("of %d: %s has %s for a neighbour, and not the other way round", tt.n, id.Short(), other.Short())
				}
			}
			if n > 100 && n%50 != 0 {
				continue
			}
			if most, beyond := far(r, id); most < 0 || most > tt.far || beyond > tt.beyond {
				t.Errorf("of %d: got the furthest at %d, and %d beyond three, want %d and %d at most", tt.n, most, beyond, tt.far, tt.beyond)
			}
		}
	}
}

// Who comes changes the neighbours of those next to it, and nobody else's.
func TestComingChangesFew(t *testing.T) {
	all := some(100)
	before, after, changed := New(all[1:]), New(all), 0
	for _, id := range all[1:] {
		if !slices.Equal(before.Neighbours(id), after.Neighbours(id)) {
			changed++
		}
	}
	if changed > 2*Count {
		t.Errorf("got %d members with other neighbours, want %d at most", changed, 2*Count)
	}
}

// A walk begins with the neighbour, meets nobody twice and never the walker; who is no member walks from where it would stand.
func TestWalks(t *testing.T) {
	r := New(some(40))
	outsider := some(41)[40]
	if r.Has(outsider) || !r.Has(some(1)[0]) {
		t.Error("got a wrong idea of who is a member")
	}
	for _, from := range append(some(5), outsider) {
		walks := r.Walks(from, 4)
		if len(walks) != 2*Count {
			t.Fatalf("got %d walks, want %d", len(walks), 2*Count)
		}
		for i, walk := range walks {
			other := walks[i^1]
			for j, id := range walk {
				if id == from || slices.Contains(walk[:j], id) || slices.Contains(other, id) {
					t.Errorf("walk %d meets %s again", i, id.Short())
				}
			}
		}
	}
	for _, id := range some(40) {
		if other, ok := r.Chance(id, []byte{1}); !ok || other == id || !r.Has(other) {
			t.Errorf("got %s by chance, want another member", other.Short())
		}
	}
}
