package path

import (
	"net/netip"
	"testing"
	"time"

	"warren/mesh/identity"
)

// straightPair are two machines that reach each other by letters alone, each 100 ms long.
type straightPair struct {
	t     *testing.T
	now   time.Time
	sides [2]*Machine // controlling, controlled
	wakes [2]time.Time
	posts []post
	lose  func(to int, m Message) bool
}

type post struct {
	at time.Time
	to int
	in Input
}

var straightAddrs = [2]netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:9277"), netip.MustParseAddrPort("198.51.100.2:9277")}

func (p *straightPair) local(side int, relays ...RelayOffer) Local {
	return Local{Candidates: []Candidate{NewCandidate(Host, straightAddrs[side], 0)}, Relays: relays}
}

func (p *straightPair) step(side int, in Input) {
	out, wake := p.sides[side].Step(p.now, in)
	p.wakes[side] = wake
	for _, o := range out {
		switch o := o.(type) {
		case Send:
			m := o.Message
			if m.Straight.IsValid() && !p.lose(1-side, m) {
				m.Straight = straightAddrs[side]
				p.posts = append(p.posts, post{p.now.Add(100 * time.Millisecond), 1 - side, Received{m}})
			}
		case Check:
			if o.To == straightAddrs[1-side] && !p.lose(1-side, Message{}) { // whoever is there answers
				p.posts = append(p.posts, post{p.now.Add(200 * time.Millisecond), side, CheckAnswered{o.ID}})
			}
		}
	}
}

// until lets time pass.
func (p *straightPair) until(end time.Time) {
	for {
		next, side := end, -1
		for i, at := range p.wakes {
			if !at.IsZero() && at.Before(next) {
				next, side = at, i
			}
		}
		first := -1
		for i, one := range p.posts {
			if !one.at.After(next) && (first < 0 || one.at.Before(p.posts[first].at)) {
				first = i
			}
		}
		switch {
		case first >= 0:
			one := p.posts[first]
			p.posts = append(p.posts[:first], p.posts[first+1:]...)
			p.now = one.at
			p.step(one.to, one.in)
		case side < 0:
			p.now = end
			return
		default:
			p.now = next
			p.step(side, Wake{})
		}
	}
}

// An answer that is lost is had again, whenever the other side's session comes up, after which it looks for an attempt that has a relay: what it
// asks by sessions need not come to anybody. With the answer the check is lost that leaves beside it, by whose answer this side would have a
// path. The same with two and three answers lost, and when its network changes in place of the session.
func TestLostAnswerAndASessionThatComesUp(t *testing.T) {
	news := map[string]func(p *straightPair) Input{
		"session": func(p *straightPair) Input {
			return p.local(1, RelayOffer{Anchor: identity.NodeID{7}, RTTms: 100})
		},
		"network": func(p *straightPair) Input { return NetworkChanged{Local: p.local(1)} },
	}
	worst := make(map[string]time.Duration)
	for name, in := range news {
		for lost := 1; lost <= 3; lost++ {
			for up := time.Duration(0); up < 800*time.Millisecond; up += 5 * time.Millisecond {
				begin := time.Unix(1_800_000_000, 0)
				p := &straightPair{t: t, now: begin}
				left := lost
				p.lose = func(to int, m Message) bool {
					if m.Kind == KindAnswer && left > 0 {
						left--
						return true
					}
					return to == 0 && m.Kind == 0 // a check; ICE is not modelled, and would do the rest
				}
				for i := range p.sides {
					p.sides[i] = New(Config{Self: identity.NodeID{byte(i + 1)}, Peer: identity.NodeID{byte(2 - i)}, Instance: [8]byte{byte(i + 1)}, Seed: [32]byte{byte(i)}}, begin)
					p.step(i, p.local(i))
				}
				for i := range p.sides {
					p.step(i, Met{straightAddrs[1-i]})
				}
				p.until(begin.Add(up))
				p.step(1, in(p))
				p.until(begin.Add(3 * time.Second))
				if s := p.sides[0].Status(p.now); s.Path.Kind != Direct {
					t.Fatalf("%s after %v, %d answers lost: got %v (%s), want a direct path", name, up, lost, s.Path.Kind, s.State)
				}
				worst[name] = max(worst[name], p.sides[0].Status(p.now).Since.Sub(begin))
			}
		}
	}
	for name, took := range worst {
		if took > 800*time.Millisecond { // 1 s when what the other side asks by sessions is all that it says
			t.Errorf("%s: the controlling side has its path after %v, want 800ms at the latest", name, took)
		}
	}
	t.Logf("the controlling side has its path after %v at the latest", worst)
}
