//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// What status and why say is compared with what the lab knows.

// told are the verdicts that are true of a peer as seen by a node, by the kinds of their networks, when both are there. While a path is being
// tried, or as long as too little is known of a NAT, why may say just that.
func told(x, y natlab.Kind) []string {
	hard := func(k natlab.Kind) bool { return k == natlab.Symmetric || k == natlab.SymmetricCarrier }
	switch route := routeBetween(x, y); {
	case route == routeDirect:
		return []string{"direct"}
	case x == natlab.UDPBlocked:
		return []string{"udp-blocked-here"}
	case y == natlab.UDPBlocked:
		return []string{"udp-blocked-there", "trying"}
	case hard(x) && hard(y):
		return []string{"both-map-by-destination", "trying", "unexplained"}
	}
	return []string{"maps-by-destination", "trying", "unexplained"}
}

// judge asks a node by status and by why about a peer that is there and answers, and asserts that it says so, and one of these verdicts.
func (b *bed) judge(n, about *Node, verdicts []string) {
	b.t.Helper()
	var wrong string
	for {
		if wrong = b.misjudged(n, about, verdicts); wrong == "" {
			return
		}
		// What has just changed may not have been heard of; a lie stays.
		select {
		case <-b.ctx.Done():
			b.t.Errorf("%s about %s: %s", n.Name(), about.Name(), wrong)
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// misjudged is what one look finds wrong; "" for nothing.
func (b *bed) misjudged(n, about *Node, verdicts []string) string {
	w, err := n.Why(b.ctx, about.Name())
	if err != nil {
		return err.Error()
	}
	s, err := n.Status(b.ctx)
	if err != nil {
		return err.Error()
	}
	p, _ := Peer(s, about.Name())
	said := fmt.Sprintf("status: %s %s (%s); why: %s, %q, %q, ping %v", p.State, p.Path.Kind, p.Reason, w.Verdict, w.Conclusion, w.Cause, w.PingMS)
	switch {
	case !slices.Contains(verdicts, w.Verdict):
		return fmt.Sprintf("want %v of %s", verdicts, said)
	case w.PingMS == 0 || !strings.Contains(w.Conclusion, about.Name()+" is reached"):
		return "want that it answers of " + said
	case p.State != api.PeerUp && p.LastHeard == nil || !p.Connected():
		return "want it connected by status, having answered a ping, of " + said
	}
	return ""
}

// gone asserts that a node which sends to a peer that has gone at a time says so within the time it may take, and goes on: status does not
// call it up or idle, and why not reached. Two seconds are promised, and thrice that allowed.
func (b *bed) gone(n, about *Node, since time.Time) {
	b.t.Helper()
	starving := b.starving()
	_, err := n.Wait(b.ctx, about.Name()+" is missed", func(s api.Status) bool {
		p, _ := Peer(s, about.Name())
		return !p.Connected()
	})
	b.must(err)
	took := time.Since(since)
	b.step("%s misses %s after %v", n.Name(), about.Name(), took.Round(10*time.Millisecond))
	if took > stretch(6*time.Second)+starving() {
		b.t.Errorf("%s misses %s after %v, want 2 s", n.Name(), about.Name(), took)
	}
	w, err := n.Why(b.ctx, about.Name())
	b.must(err)
	if strings.Contains(w.Conclusion, "is reached") || w.PingMS > 0 || w.Cause == "" || w.Verdict == "handshake-unanswered" {
		b.t.Errorf("%s about %s, which is gone: got %s, %q, %q", n.Name(), about.Name(), w.Verdict, w.Conclusion, w.Cause)
	}
	if p, _ := Peer(b.status(n), about.Name()); p.Connected() {
		b.t.Errorf("%s calls %s %s again", n.Name(), about.Name(), p.State)
	}
}

// TestDeadPeersAreNotUp kills both public nodes of a mesh at once. Whoever sends to one says so within two seconds, and whoever does not says how
// long ago it heard of it; the two behind NATs go on.
func TestDeadPeersAreNotUp(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, second := bed.node("founder", nil), bed.node("second", nil)
	a, c := bed.node("a", bed.Router("home-a", natlab.EIMAPDF)), bed.node("c", bed.Router("home-c", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, second, a, c))
	bed.connected(a, c, api.PathDirect)
	bed.connected(a, founder, api.PathDirect)
	bed.connected(a, second, api.PathDirect)
	for _, other := range []*Node{founder, second, c} {
		bed.judge(a, other, []string{"direct"})
	}
	bed.step("all are there")
	used, idle := bed.meter(a, founder), bed.meter(a, c)
	bed.eventually("a hears the founder", func() bool { return used.silent(time.Now()) < hole })
	since, starving := time.Now(), bed.starving()
	bed.kill(founder)
	bed.kill(second)
	bed.step("both public nodes are dead")
	dead := time.Now()
	bed.gone(a, founder, since)
	for {
		s := bed.status(a)
		p, _ := Peer(s, "second")
		age := s.Time.Sub(dead)
		if p.State == api.PeerUp && age > 2*time.Second+starving() {
			t.Fatalf("status calls second up %v after its death", age)
		}
		if p.State == api.PeerIdle && (p.LastHeard == nil || p.LastHeard.After(dead)) {
			t.Fatalf("status has heard second at %v, which died at %v", p.LastHeard, dead)
		}
		if age > 3*time.Second {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	bed.judge(a, c, []string{"direct"})
	idle.stop()
	used.stop()
	if w, err := a.Why(bed.ctx, "second"); err != nil || w.PingMS > 0 || strings.Contains(w.Conclusion, "is reached") {
		t.Errorf("why second, which is dead: got %q, %v", w.Conclusion, err)
	}
	bed.gone(a, second, time.Now()) // the question was traffic
	bed.must(founder.Start(bed.ctx))
	bed.step("the founder is back")
	bed.judge(a, founder, []string{"direct"})
	bed.step("and is known to be")
}

// judged has an event happen while echoes go both ways. All along, status may not call the other end up once nothing has come from there for
// longer than the two seconds, and as long again, and why may name no cause that the lab does not know of; in the end both say how it is reached, in
// status and by why.
func (w *world) judged(e event, verdicts []string) {
	w.t.Helper()
	meters := []*meter{w.meter(w.x, w.y), w.meter(w.y, w.x)}
	defer func() {
		for _, m := range meters {
			m.stop()
			m.done.Wait()
		}
	}()
	w.eventually("echoes go both ways before "+e.name, func() bool {
		now := time.Now()
		return meters[0].silent(now) < hole && meters[1].silent(now) < hole
	})
	var asked sync.WaitGroup
	over := make(chan struct{})
	for i, n := range []*Node{w.x, w.y} {
		asked.Go(func() { w.whyAllAlong(e.name, n, []*Node{w.y, w.x}[i], meters[i], verdicts, over) })
	}
	starving := w.starving()
	e.happen(w)
	begin := time.Now()
	var told [2]time.Time // since when each status says up; nothing need have come when it begins to: a path answers before the tunnel does
	for heals := false; !heals; {
		heals = time.Since(begin) > time.Second
		for i, n := range []*Node{w.x, w.y} {
			before := time.Now()
			s, err := n.Status(w.ctx)
			if err != nil {
				heals = false // it starts
				continue
			}
			other := []*Node{w.y, w.x}[i]
			p, _ := Peer(s, other.Name())
			silent := meters[i].silent(before)
			if p.State != api.PeerUp {
				told[i] = time.Time{}
			} else if told[i].IsZero() {
				told[i] = before
			} else if up := before.Sub(told[i]); min(silent, up) > 4*time.Second+starving() && time.Since(before) < time.Second {
				w.t.Fatalf("%s: %s calls %s up for %v, from which nothing came for %v", e.name, n.Name(), other.Name(), up, silent)
			}
			heals = heals && silent < hole && p.State == api.PeerUp
		}
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("%s: it has not healed, or status does not say so: %s; %s", e.name, Describe(w.status(w.x)), Describe(w.status(w.y)))
		case <-time.After(20 * time.Millisecond):
		}
	}
	close(over)
	asked.Wait()
	w.step("%s: healed", e.name)
	w.judge(w.x, w.y, verdicts)
	w.judge(w.y, w.x, verdicts)
	if e.after != nil {
		e.after(w)
	}
}

// passing are the verdicts that an event may bring for a while: the way is lost, or sought anew. That the other end is off may be said only of one of
// which nothing was heard for some time, and unstable says what was seen of the checks on a machine that is busy, and no more. Whatever blames a
// network, a machine or a key is a lie in the events of the table.
var passing = []string{"direct", "trying", "handshake", "silent", "lost", "no-route", "isolated", "off", "unstable"}

// whyAllAlong asks one node again and again why the other is reached as it is, while an event goes on, and reports what is said wrongly.
func (w *world) whyAllAlong(event string, n, about *Node, m *meter, verdicts []string, over <-chan struct{}) {
	starving := w.starving()
	var doubted time.Time // since when UDP is said to be blocked: of two anchors one is gone, and the other may be late on a machine that is busy
	for {
		before := time.Now()
		silent := m.silent(before)
		if said, err := n.Why(w.ctx, about.Name()); err == nil {
			now := time.Now()
			text := fmt.Sprintf("%s: %s about %s, from which nothing came for %v before and %v after: %s, %q, %q, ping %v", event, n.Name(), about.Name(),
				silent.Round(time.Millisecond), m.silent(now).Round(time.Millisecond), said.Verdict, said.Conclusion, said.Cause, said.PingMS)
			blocked := strings.HasPrefix(said.Verdict, "udp-blocked-")
			if !blocked {
				doubted = time.Time{}
			} else if doubted.IsZero() {
				doubted = now
			}
			switch {
			case blocked && now.Sub(doubted) < 4*time.Second+starving():
			case !slices.Contains(passing, said.Verdict) && !slices.Contains(verdicts, said.Verdict):
				w.t.Errorf("%s: want one of %v or %v", text, passing, verdicts)
			case said.Verdict == "off" && m.silent(now) < time.Second:
				w.t.Errorf("%s: want it not called off", text)
			case said.PingMS > 0 && m.silent(now)-now.Sub(before) > 4*time.Second+starving():
				w.t.Errorf("%s: want no answer", text)
			case said.PingMS > 0 && strings.Contains(said.Conclusion, "not reached") && said.Verdict != "lost", said.PingMS == 0 && said.Verdict == "direct" && m.silent(now) >= hole:
				// What came back while the ping was out is reached, whatever became of that.
				w.t.Errorf("%s: want the two to agree", text)
			}
		}
		select {
		case <-over:
			return
		case <-w.ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// idles asserts that a node which sends nothing any more to a peer that is there calls it idle soon, with the age of the last sign of life.
func (b *bed) idles(n, about *Node) {
	b.t.Helper()
	_, err := n.Wait(b.ctx, about.Name()+" is idle", func(s api.Status) bool {
		p, _ := Peer(s, about.Name())
		if !p.Connected() || p.LastHeard == nil || p.LastHeard.After(s.Time.Add(time.Second)) || s.Time.Sub(*p.LastHeard) > time.Minute {
			b.t.Errorf("%s about %s, which is there: got %s, heard %v at %v", n.Name(), about.Name(), p.State, p.LastHeard, s.Time)
			return true
		}
		return p.State == api.PeerIdle
	})
	b.must(err)
}

// judgeEvents judges the events of the table with these names, in one world.
func judgeEvents(t *testing.T, verdicts []string, names ...string) {
	t.Parallel()
	var w *world
	for _, e := range eventTable() {
		if !slices.Contains(names, e.name) {
			continue
		}
		if w == nil {
			w = worldOf(newBed(t, 3*time.Minute), e.x, e.y)
			w.connected(w.x, w.y, e.want)
		}
		w.judged(e, verdicts)
	}
	w.idles(w.x, w.y)
	w.idles(w.y, w.x)
}

// TestJudgeDirect and its siblings ask status and why in the events of the table.
func TestJudgeDirect(t *testing.T) {
	judgeEvents(t, []string{"direct"}, "rebind/a", "flush/b", "roam/a", "address/b", "restart/a", "crash/b", "anchor-killed/direct")
}

// TestJudgeMoved is for the other side of each, and for both at once.
func TestJudgeMoved(t *testing.T) {
	judgeEvents(t, []string{"direct"}, "rebind/b", "flush/a", "roam/b", "roam/both", "address/a", "restart/b", "crash/a")
}

// TestJudgeRemapped is for routers that give another port, of the one that offers and of the one that answers.
func TestJudgeRemapped(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"remap/a", "remap/b"} {
		t.Run(name[len("remap/"):], func(t *testing.T) { judgeEvents(t, []string{"direct"}, name) })
	}
}

// TestJudgeRelayed is for two ends that only a relay connects.
func TestJudgeRelayed(t *testing.T) {
	// While the kind of the other's router is not known anew, what is said of this one's is true as well.
	judgeEvents(t, []string{"both-map-by-destination", "maps-by-destination", "trying", "unexplained"}, "remap/relayed", "restart/relayed", "relay-killed", "relay-restart", "relay-crash")
}

// TestJudgeCut cuts the line of one end for 20 s while both send, and mends it. Neither end blames anything but the silence, and the one without a
// line knows that it is the one.
func TestJudgeCut(t *testing.T) {
	t.Parallel()
	w := worldOf(newBed(t, 2*time.Minute), natlab.EIMAPDF, natlab.EIMAPDF)
	w.connected(w.x, w.y, routeDirect)
	m, back := w.meter(w.x, w.y), w.meter(w.y, w.x)
	w.eventually("a and b hear each other", func() bool { return m.silent(time.Now()) < hole && back.silent(time.Now()) < hole })
	since := time.Now()
	w.Cut(w.homeY)
	var both sync.WaitGroup
	over := make(chan struct{})
	both.Go(func() { w.whyAllAlong("cut", w.x, w.y, m, nil, over) })
	both.Go(func() { w.whyAllAlong("cut", w.y, w.x, back, nil, over) })
	w.gone(w.x, w.y, since)
	w.gone(w.y, w.x, time.Now())
	if p, _ := Peer(w.status(w.x), w.anchors[0].Name()); p.State == api.PeerDown || p.State == api.PeerSilent {
		t.Errorf("a calls the anchor, which is there, %s: %s", p.State, p.Reason)
	}
	w.judge(w.x, w.anchors[0], []string{"direct"})
	w.eventually("20 s without a line", func() bool {
		for i, n := range []*Node{w.x, w.y} {
			other := []*Node{w.y, w.x}[i]
			if p, _ := Peer(w.status(n), other.Name()); p.Connected() && time.Since(since) > 6*time.Second {
				t.Errorf("%s calls %s %s, %v after the cut", n.Name(), other.Name(), p.State, time.Since(since))
			}
		}
		return time.Since(since) > cutFor
	})
	if said, err := w.y.Why(w.ctx, w.anchors[0].Name()); err != nil || said.PingMS > 0 || !slices.Contains([]string{"isolated", "off", "silent", "lost"}, said.Verdict) {
		t.Errorf("b about the anchor, which no line leads to: got %s, %q, %v", said.Verdict, said.Cause, err)
	}
	close(over)
	both.Wait()
	w.Mend(w.homeY)
	w.eventually("they hear each other again", func() bool { return m.silent(time.Now()) < hole && back.silent(time.Now()) < hole })
	w.judge(w.x, w.y, []string{"direct"})
	w.judge(w.y, w.x, []string{"direct"})
}

// TestBatchesVanish asserts that why and netcheck tell of a way on which what the kernel sends in one piece is lost, though all else arrives.
func TestBatchesVanish(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", bed.Router("home", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.connected(a, founder, api.PathDirect)
	bed.why(a, founder, "direct", "batches arrive at founder")
	bed.fence(a, "meta l4proto udp meta length gt 1600 drop")
	bed.why(a, founder, "batches-lost", "single packets arrive and batches of them do not", "ethtool -K")
	bed.netcheck(a, nil, "batches lost on the way to founder", "tx-udp-segmentation off")
	bed.why(founder, a, "direct", "batches arrive at a")
}
