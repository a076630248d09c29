package bind

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// member is one source in a test of share, with what became of its packets.
type member struct {
	flow    flow
	forward *forward
	next    uint32 // number of its next packet
	seen    uint32 // number of the last one that left
	bytes   int    // that left
	packets uint64 // the same
	lost    uint64 // not taken
}

func newMembers(n int) (list []*member) {
	for i := range n {
		list = append(list, &member{forward: &forward{number: uint16(0x4000 + i), counters: new(ForwardCounters)}})
	}
	return list
}

func (m *member) send(s *share, size int) {
	m.next++
	p := make([]byte, size)
	binary.BigEndian.PutUint32(p, m.next)
	if _, taken := s.push(&m.flow, m.forward, p); !taken {
		m.lost++
	}
}

// dropped is how many packets of a member did not leave and will not.
func (m *member) dropped() uint64 { return m.lost + m.forward.counters.Load().Dropped }

// receive takes a parcel and notes what left; it asserts that each member's packets leave in their order.
func receive(t *testing.T, s *share, now time.Time, p *parcel, most int, members []*member) (bytes int, wait time.Duration) {
	t.Helper()
	wait = s.take(now, p, most)
	list := p.list
	for _, run := range p.runs {
		m := members[run.forward.number-0x4000]
		for _, f := range list[:run.n] {
			if got := binary.BigEndian.Uint16(f); got != run.forward.number || int(binary.BigEndian.Uint16(f[2:])) != len(f)-channelHeaderSize {
				t.Fatalf("got a frame of channel %#x with %d bytes in a run of %#x", got, len(f), run.forward.number)
			}
			number := binary.BigEndian.Uint32(f[channelHeaderSize:])
			if number <= m.seen {
				t.Fatalf("got packet %d of channel %#x after %d", number, run.forward.number, m.seen)
			}
			m.seen = number
			m.bytes += len(f)
			m.packets++
			bytes += len(f)
		}
		list = list[run.n:]
	}
	if len(list) > 0 || len(p.list) > most {
		t.Fatalf("got %d frames, %d in no run, want at most %d", len(p.list), len(list), most)
	}
	return bytes, wait
}

// One member floods; the others, who stay below their share, lose nothing and do not wait.
func TestShareIsFair(t *testing.T) {
	const rate = 10_000_000 / 8
	s, members := &share{rate: rate}, newMembers(5)
	greedy, modest := members[0], members[1:]
	p := new(parcel)
	start := time.Unix(1000, 0)
	total, longest := 0, time.Duration(0)
	sent := make(map[*member]time.Time)
	for now := start; now.Sub(start) < 3*time.Second; now = now.Add(time.Millisecond) {
		for range 20 { // 240 Mbit/s
			greedy.send(s, 1400)
		}
		for i, m := range modest { // 1.1 Mbit/s each
			if (now.UnixMilli()+int64(i))%10 == 0 {
				m.send(s, 1400)
				sent[m] = now
			}
		}
		for {
			n, _ := receive(t, s, now, p, 128, members)
			if total += n; n == 0 {
				break
			}
		}
		for m, at := range sent {
			if m.seen == m.next {
				longest = max(longest, now.Sub(at))
				delete(sent, m)
			}
		}
	}
	for i, m := range modest {
		if m.dropped() != 0 || m.next-m.seen > 1 {
			t.Errorf("member %d: got %d of %d packets dropped, %d waiting, want none", i+1, m.dropped(), m.next, m.next-m.seen)
		}
	}
	if longest > 10*time.Millisecond {
		t.Errorf("got a packet of a modest member that waited %s, want 10 ms at most", longest)
	}
	if want := 3 * rate; total > want*101/100+s.limit() || total < want*99/100 {
		t.Errorf("got %d bytes in 3 s, want %d", total, want)
	}
	if greedy.dropped() == 0 {
		t.Error("got nothing dropped of the one that floods")
	}
}

// Those who want more than there is get the same, whatever the size of their packets.
func TestShareIsEqual(t *testing.T) {
	for _, rate := range []int{0, 1_000_000, 100_000_000} {
		s, members := &share{rate: rate}, newMembers(4)
		p := new(parcel)
		now := time.Unix(1000, 0)
		for range 1000 {
			now = now.Add(time.Millisecond)
			for i, m := range members {
				for range 1 + i*50 {
					m.send(s, []int{9000, 1400, 200, 60}[i])
				}
			}
			receive(t, s, now, p, 16, members)
		}
		for i, m := range members[:3] {
			if ratio := float64(m.bytes) / float64(members[0].bytes); ratio < 0.9 || ratio > 1.1 {
				t.Errorf("rate %d: got member %d %d bytes and member 0 %d, want the same", rate, i, m.bytes, members[0].bytes)
			}
		}
	}
}

// When there is no room, the longest queue gives way.
func TestShareDropsFromTheLongest(t *testing.T) {
	s, members := new(share), newMembers(maxBlocks*2)
	flood := members[0]
	for range 2 * shareBytes / 1000 {
		flood.send(s, 1000)
	}
	if s.bytes > shareBytes || flood.lost == 0 {
		t.Fatalf("got %d bytes waiting and %d dropped, want %d at most and some", s.bytes, flood.lost, shareBytes)
	}
	before := flood.dropped()
	for _, m := range members[1:40] {
		m.send(s, 1000)
		if m.dropped() != 0 {
			t.Fatal("got a packet of another dropped, want the flood to give way")
		}
	}
	if flood.dropped() == before {
		t.Error("got nothing more of the flood dropped")
	}
}

// Whatever comes, each packet leaves, waits or is counted as dropped, and what waits is bounded.
func TestShareKeepsCount(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s, members := &share{rate: int(seed%3) * 2_000_000}, newMembers(1+rnd.IntN(200))
		p := new(parcel)
		now := time.Unix(1000, 0)
		for range 300 {
			now = now.Add(time.Duration(rnd.IntN(3000)) * time.Microsecond)
			for range rnd.IntN(400) {
				size := 32 + rnd.IntN(1400)
				if rnd.IntN(500) == 0 {
					size = 40_000 + rnd.IntN(30_000) // some too large
				}
				members[min(rnd.IntN(len(members)), rnd.IntN(len(members)))].send(s, size)
			}
			if s.bytes > s.limit() || s.blocks > maxBlocks {
				t.Fatalf("seed %d: got %d bytes in %d blocks waiting, want at most %d in %d", seed, s.bytes, s.blocks, s.limit(), maxBlocks)
			}
			receive(t, s, now, p, 1+rnd.IntN(128), members)
		}
		s.rate = 0
		for s.last != nil {
			receive(t, s, now, p, 128, members)
		}
		s.release(p)
		for i, m := range members {
			if m.packets+m.dropped() != uint64(m.next) {
				t.Errorf("seed %d: member %d: got %d left and %d dropped of %d", seed, i, m.packets, m.dropped(), m.next)
			}
		}
		free := 0
		for b := s.free; b != nil; b = b.next {
			free++
		}
		if s.bytes != 0 || free != s.blocks {
			t.Errorf("seed %d: got %d bytes and %d of %d blocks in use at the end, want none", seed, s.bytes, s.blocks-free, s.blocks)
		}
	}
}

func TestShareDoesNotAllocate(t *testing.T) {
	s, members := &share{rate: 100_000_000}, newMembers(3)
	p := &parcel{list: make([][]byte, 0, 128), runs: make([]forwardRun, 0, 128)}
	now := time.Unix(1000, 0)
	payload := make([]byte, 1400)
	work := func() {
		now = now.Add(time.Millisecond)
		for range 100 {
			for _, m := range members {
				s.push(&m.flow, m.forward, payload)
			}
		}
		s.take(now, p, 128)
	}
	for range 100 {
		work()
	}
	if got := testing.AllocsPerRun(100, work); got > 0 {
		t.Errorf("got %v allocations for 300 packets, want none", got)
	}
}
