package filter

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// twin decides the same questions, the slow and obvious way: rules and flows are lists that are gone through from the beginning, and a packet is
// what the test says that it is. It knows no bounds of the table.
type twin struct {
	rules Rules
	flows []twinFlow
}

type twinFlow struct {
	from, to         netip.Addr
	fromPort, toPort uint16
	protocol         uint8
	farBegan         bool
	answered, ending bool
	until            time.Duration
}

// said is a packet in words.
type said struct {
	in               bool
	from, to         netip.Addr
	protocol         uint8
	fromPort, toPort uint16
	flags            byte
	reply            bool
	quotes           *said // it is an error about that
}

func (w *twin) permitted(p said, farBegan bool) bool {
	if p.protocol == 17 && p.toPort == pingPort && (!farBegan || slices.Contains(w.rules.Own, p.to)) {
		return true
	}
	if farBegan && slices.Contains(w.rules.Own, p.from) {
		return false
	}
	if farBegan && !w.rules.Incoming {
		through := slices.ContainsFunc(w.rules.Through, func(x netip.Prefix) bool { return x.Contains(p.to) })
		if !through {
			return false
		}
	}
	return w.listed(p)
}

func (w *twin) listed(p said) bool {
	if w.rules.Open {
		return true
	}
	for _, r := range w.rules.Rules {
		from := slices.ContainsFunc(r.From, func(x netip.Prefix) bool { return x.Contains(p.from) })
		to := slices.ContainsFunc(r.To, func(x netip.Prefix) bool { return x.Contains(p.to) })
		if !from || !to {
			continue
		}
		for _, ports := range r.Ports {
			icmp := (ports.Protocol == 1 || ports.Protocol == 58) && (p.protocol == 1 || p.protocol == 58)
			port := p.toPort
			if p.protocol == 1 || p.protocol == 58 {
				port = 0
			}
			if (ports.Protocol == 0 || ports.Protocol == p.protocol || icmp) && ports.First <= port && port <= ports.Last {
				return true
			}
		}
	}
	return false
}

// find returns the flow of a packet that is over by nothing but its time, and whether the packet goes the way of its first.
func (w *twin) find(p said, now time.Duration) (at int, forward bool) {
	for i, f := range w.flows {
		if f.until <= now || f.protocol != p.protocol {
			continue
		}
		if f.from == p.from && f.to == p.to && f.fromPort == p.fromPort && f.toPort == p.toPort && f.farBegan == p.in {
			return i, true
		}
		if f.from == p.to && f.to == p.from && f.fromPort == p.toPort && f.toPort == p.fromPort && f.farBegan != p.in {
			return i, false
		}
	}
	return -1, false
}

// lives reports whether a flow may go on under the rules of now.
func (w *twin) lives(f twinFlow) bool {
	first := said{from: f.from, to: f.to, protocol: f.protocol, fromPort: f.fromPort, toPort: f.toPort}
	return w.permitted(first, f.farBegan) || w.listed(first)
}

func (w *twin) passes(p said, now time.Duration) bool {
	if w.rules.Open && w.rules.Incoming {
		w.flow(p, now)
		return true
	}
	return w.flow(p, now)
}

func (w *twin) flow(p said, now time.Duration) bool {
	if p.quotes != nil {
		q := *p.quotes
		q.in = !p.in
		at, _ := w.find(q, now)
		return q.from == p.to && p.from == q.to && at >= 0 && w.alive(at)
	}
	if at, forward := w.find(p, now); at >= 0 && w.alive(at) {
		f := &w.flows[at]
		opens := p.protocol == 6 && p.flags&flagSYN != 0 && p.flags&flagACK == 0
		if !opens || forward && !f.ending {
			f.answered = f.answered || !forward
			f.ending = f.ending || p.flags&(flagFIN|flagRST) != 0
			f.until = now + f.lasts()
			return true
		}
		w.flows = slices.Delete(w.flows, at, at+1)
	}
	if p.reply {
		return false
	}
	f := twinFlow{from: p.from, to: p.to, fromPort: p.fromPort, toPort: p.toPort, protocol: p.protocol, farBegan: p.in, ending: p.flags&(flagFIN|flagRST) != 0}
	if !w.permitted(p, p.in) {
		turned := said{from: p.to, to: p.from, protocol: p.protocol, fromPort: p.toPort, toPort: p.fromPort}
		if p.in || p.protocol != 6 || p.flags&(flagSYN|flagRST) != 0 || !w.permitted(turned, true) {
			return false
		}
		f.from, f.to, f.fromPort, f.toPort, f.farBegan = p.to, p.from, p.toPort, p.fromPort, true
		f.answered = true
	}
	f.until = now + f.lasts()
	w.flows = append(w.flows, f)
	return true
}

func (w *twin) alive(at int) bool { return w.lives(w.flows[at]) }

func (f *twinFlow) lasts() time.Duration {
	switch {
	case f.ending:
		return 4 * time.Minute
	case f.protocol == 1 || f.protocol == 58, !f.answered:
		return 30 * time.Second
	case f.protocol == 6:
		return 2*time.Hour + 5*time.Minute
	}
	return 3 * time.Minute
}

// prune takes out what the filter takes out: flows that the rules of now end, once their packets come. The twin keeps those whose packets do
// not come, and they may be allowed again; so does the filter.
func (w *twin) prune(p said, now time.Duration) {
	q := p
	if p.quotes != nil {
		q = *p.quotes
		q.in = !p.in
		if q.from != p.to || p.in && p.from != q.to {
			return
		}
	}
	if at, _ := w.find(q, now); at >= 0 && !w.alive(at) {
		w.flows = slices.Delete(w.flows, at, at+1)
	}
}

// bytes makes the packet.
func (p said) bytes() []byte {
	var body []byte
	switch {
	case p.quotes != nil:
		kind := byte(3)
		if p.protocol == 58 {
			kind = 1
		}
		body = icmp(kind, 0, p.quotes.bytes())
	case p.protocol == 6:
		body = tcp(p.fromPort, p.toPort, p.flags)
	case p.protocol == 17:
		body = udp(p.fromPort, p.toPort, 3)
	case p.protocol == 132:
		body = ports(make([]byte, 12), p.fromPort, p.toPort)
	case p.protocol == 1 || p.protocol == 58:
		kind, id := byte(8), p.fromPort
		if p.reply {
			kind, id = 0, p.toPort
		}
		if p.protocol == 58 {
			kind = 128
			if p.reply {
				kind = 129
			}
		}
		body = icmp(kind, id, nil)
	default:
		body = make([]byte, 16)
	}
	return ip(p.from.String(), p.to.String(), p.protocol, body)
}

// dice make policies, members and packets.
type dice struct{ *rand.Rand }

var world = []string{"100.64.0.1", "100.64.0.2", "100.64.0.3", "100.64.0.4", "10.1.0.9", "fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd07::9"}

func (d dice) prefixes() (out []netip.Prefix) {
	for range 1 + d.IntN(3) {
		a := netip.MustParseAddr(world[d.IntN(len(world))])
		bits := a.BitLen() - []int{0, 0, 0, 1, 2, 8}[d.IntN(6)]
		if d.IntN(12) == 0 {
			bits = 0
		}
		out = append(out, netip.PrefixFrom(a, bits).Masked())
	}
	return out
}

func (d dice) rules() Rules {
	r := Rules{Open: d.IntN(8) == 0, Incoming: d.IntN(6) > 0, Own: []netip.Addr{netip.MustParseAddr(world[0]), netip.MustParseAddr(world[5])}}
	if d.IntN(3) == 0 {
		r.Through = d.prefixes()
	}
	for range d.IntN(90) {
		rule := Rule{From: d.prefixes(), To: d.prefixes()}
		for range d.IntN(3) {
			first := uint16(d.IntN(4))
			rule.Ports = append(rule.Ports, Ports{Protocol: []uint8{0, 1, 6, 6, 17, 58, 132, 47}[d.IntN(8)], First: first, Last: first + uint16(d.IntN(4))})
		}
		r.Rules = append(r.Rules, rule)
	}
	// Most worlds are narrow: else all would pass.
	r.Rules = r.Rules[:len(r.Rules)/(1+d.IntN(20))]
	return r
}

func (d dice) packet() said {
	own, others := []string{world[0], world[4]}, world[1:4]
	if d.IntN(2) == 0 {
		own, others = []string{world[5], world[9]}, world[6:9]
	}
	near, far := netip.MustParseAddr(own[d.IntN(12)/11]), netip.MustParseAddr(others[d.IntN(3)])
	p := said{in: d.IntN(2) == 0, from: near, to: far, protocol: []uint8{1, 6, 6, 6, 17, 17, 132, 47}[d.IntN(8)]}
	if p.in {
		p.from, p.to = far, near
	}
	if d.IntN(50) == 0 {
		p.from, p.to = p.to, p.from // another's address
	}
	p.fromPort, p.toPort = uint16(1+d.IntN(4)), uint16(1+d.IntN(4))
	switch p.protocol {
	case 6:
		p.flags = []byte{flagSYN, flagSYN | flagACK, flagACK, flagACK, flagACK | flagFIN, flagRST}[d.IntN(6)]
	case 17:
		if d.IntN(6) == 0 {
			p.toPort = pingPort
		} else if d.IntN(6) == 0 {
			p.fromPort = pingPort
		}
	case 1:
		if near.Is6() {
			p.protocol = 58
		}
		if p.reply = d.IntN(2) == 0; p.reply {
			p.fromPort = 0
		} else {
			p.toPort = 0
		}
	case 47:
		p.fromPort, p.toPort = 0, 0
	}
	return p
}

// TestTwin plays random packets under random policies, which change on the way, through the filter and its twin.
func TestTwin(t *testing.T) {
	worlds, passed, stopped := 4000, 0, 0
	for seed := range worlds {
		d := dice{rand.New(rand.NewPCG(uint64(seed), 13))}
		f, w := New(time.Time{}), &twin{}
		f.SetPeers([]Peer{
			{Key: [32]byte{2}, AllowedIPs: prefixesOf("100.64.0.2/32", "fd00::2/128")}, {Key: [32]byte{3}, AllowedIPs: prefixesOf("100.64.0.3/32", "fd00::3/128")},
			{Key: [32]byte{4}, AllowedIPs: prefixesOf("100.64.0.4/32", "fd00::4/128")},
		})
		var now time.Duration
		var log []said
		for step := range 50 {
			if step%17 == 0 {
				w.rules = d.rules()
				f.SetRules(w.rules)
			}
			now += []time.Duration{time.Millisecond, time.Millisecond, time.Second, 20 * time.Second, 100 * time.Second, time.Hour}[d.IntN(64)%6]
			p := d.packet()
			if len(log) > 0 && d.IntN(2) == 0 { // an answer to what was before, or more of it
				p = log[d.IntN(len(log))]
				if d.IntN(3) > 0 {
					p.in, p.from, p.to, p.fromPort, p.toPort = !p.in, p.to, p.from, p.toPort, p.fromPort
					p.reply = p.protocol == 1 || p.protocol == 58
					p.reply = p.reply && p.fromPort == 0
				}
				if d.IntN(6) == 0 {
					q := p
					p = said{in: !q.in, from: q.to, to: q.from, protocol: 1, quotes: &q}
					if d.IntN(4) == 0 {
						p.from = d.packet().from
					}
					if p.from.Is4() != p.to.Is4() {
						continue
					}
					if p.to.Is6() {
						p.protocol = 58
					}
					// A gateway may say it of what is behind it; here nobody is one.
					if !p.in && p.from != q.to {
						continue
					}
				}
			}
			if p.quotes == nil {
				log = append(log, p)
			}
			batch := f.Batch(map[bool]Direction{true: In, false: Out}[p.in], now)
			for range 1 + d.IntN(3) {
				w.prune(p, now)
				want := w.passes(p, now)
				verdict, why := batch.Decide(p.bytes())
				if (verdict == Pass) != want {
					t.Fatalf("world %d, step %d, at %v: %+v (quotes %+v)\ngot %v (%v), the twin lets it pass: %t", seed, step, now, p, p.quotes, verdict, why, want)
				}
				if want {
					passed++
				} else {
					stopped++
				}
			}
		}
	}
	t.Logf("%d worlds, %d packets passed, %d were stopped", worlds, passed, stopped)
	if passed < worlds*5 || stopped < worlds*5 {
		t.Error("the dice make packets that all pass, or that none does")
	}
}
