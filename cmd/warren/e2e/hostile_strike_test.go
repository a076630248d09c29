//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"warren/mesh/api"
)

// result is a line of the table.
type result struct {
	attack string
	sent   int64
	counts string
	gap    time.Duration
	rss    float64
	cpu    float64
	wrong  []string
}

// each calls f for every pair that a pulse goes to and fro between; not for those of the nodes left out.
func (s *siege) each(without []*Node, f func(p *pulse, to netip.Addr, what string)) {
	names := map[netip.Addr]*Node{s.phoneAddr: {}}
	for _, n := range s.honest {
		names[s.base[n].Self.Addresses[0]] = n
	}
	for n, p := range s.pulses {
		if slices.Contains(without, n) {
			continue
		}
		for _, to := range p.to {
			if other := names[to]; to == s.phoneAddr {
				f(p, to, n.Name()+" to the phone")
			} else if !slices.Contains(without, other) {
				f(p, to, n.Name()+" to "+other.Name())
			}
		}
	}
}

// gaps returns the longest silence, and which pairs had one that was longer than the limit, or more than so many. Those that were mute
// before do not count, nor what the whole machine stood still for.
func (s *siege) gaps(without []*Node, mute []string, since, until time.Time, limit time.Duration, most int) (longest time.Duration, wrong []string) {
	still, stills := s.control.gaps(s.phone.Host.Addr4(), since, until)
	if stills > 0 {
		s.step("the machine stood still for %d ms", still.Milliseconds())
		limit, most = limit+still, most+stills
	}
	s.each(without, func(p *pulse, to netip.Addr, what string) {
		if slices.Contains(mute, what+": no answer") {
			return
		}
		gap, count := p.gaps(to, since, until)
		longest = max(longest, gap)
		if gap > limit || count > most {
			wrong = append(wrong, fmt.Sprintf("%s: silent for %d ms, %d gaps", what, gap.Milliseconds(), count))
		}
	})
	slices.Sort(wrong)
	return longest, wrong
}

// mute lists the pairs without an answer just now.
func (s *siege) mute(without []*Node) (list []string) {
	s.each(without, func(p *pulse, to netip.Addr, what string) {
		if p.silent(to) > pulseHole {
			list = append(list, what+": no answer")
		}
	})
	slices.Sort(list)
	return list
}

// changed lists what is not as it was before all attacks: agents that have ended, and what they say of themselves and of each other.
func (s *siege) changed(without []*Node) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, n := range s.honest {
		if slices.Contains(without, n) {
			continue
		}
		select {
		case <-n.Agent().Done():
			say("the agent of %s has ended: %s", n.Name(), lastLines(n.Agent().Output()))
			continue
		default:
		}
		now, err := n.Status(s.ctx)
		if err != nil {
			say("%v", err)
			continue
		}
		if was, is := s.base[n].Self, now.Self; is.Name != was.Name || !slices.Equal(is.Addresses, was.Addresses) {
			say("%s is %s %v, was %s %v", n.Name(), is.Name, is.Addresses, was.Name, was.Addresses)
		}
		if was, is := s.base[n].Self.Anchor, now.Self.Anchor; was && !is {
			say("%s is no anchor any more", n.Name())
		}
		for _, other := range s.honest {
			if other == n {
				continue
			}
			was := s.base[other].Self
			i := slices.IndexFunc(now.Peers, func(p api.Peer) bool { return p.ID == was.ID })
			if i < 0 {
				say("%s does not know %s", n.Name(), other.Name())
				continue
			}
			is := now.Peers[i]
			if is.Name != was.Name || !slices.Equal(is.Addresses, was.Addresses) || is.PublicKey != was.PublicKey {
				say("%s says of %s: %s %v %s, was %v %s", n.Name(), other.Name(), is.Name, is.Addresses, is.PublicKey, was.Addresses, was.PublicKey)
			}
			if other == s.founder && !slices.Equal(is.Routes, prefixes(s.phoneAddr)) {
				say("%s says of the founder's routes: %v, want the phone's", n.Name(), is.Routes)
			}
		}
	}
	return list
}

// strike is how one attack goes.
type strike struct {
	attack  string
	by      []*attacker
	least   time.Duration // what it needs to be felt
	allow   time.Duration // silence beyond that of a quiet mesh; zero: a second
	gaps    int           // of a pair; zero: one
	without []*Node       // what happens to their tunnels is not the attack's doing
	before  func()
	// meanwhile is called while it goes on, and may return what is wrong.
	meanwhile func() []string
}

// moment is how long an attack goes on by default.
const moment = 2 * time.Second

// strike has the attack go on for a while, and notes what comes of it. When it has but a moment, other tests have the machine at the
// same time, and an agent may wait for it longer than a tunnel may be silent: then the attack has to show the same a second time.
func (s *siege) strike(k strike) {
	s.t.Helper()
	if !s.only.MatchString(k.attack) {
		return
	}
	if k.by == nil {
		k.by = []*attacker{s.evil}
	}
	r, silent := s.once(k)
	if len(silent) > 0 && s.length == 0 {
		s.step("%s: once more, since\n  %s", k.attack, strings.Join(silent, "\n  "))
		r, silent = s.once(k)
	}
	r.wrong = append(r.wrong, silent...)
	s.conclude(r)
}

// once is strike without a second time. What is wrong with the tunnels it returns apart.
func (s *siege) once(k strike) (r result, silent []string) {
	s.t.Helper()
	if k.before != nil {
		k.before()
	}
	long := max(s.length, k.least, moment)
	before, old := s.usage(), make(map[string]bool)
	mute := s.mute(nil)
	for _, what := range append(s.changed(nil), mute...) {
		old[what] = true // not this attack's doing
	}
	begin := time.Now()
	r.attack = k.attack
	for _, a := range k.by {
		s.must(a.begin(s.ctx, k.attack, s.given(a, long)))
	}
	if k.meanwhile != nil {
		r.wrong = append(r.wrong, k.meanwhile()...)
	}
	time.Sleep(time.Until(begin.Add(long))) // the attack's time
	s.measure(&r, before, time.Since(begin))
	r.wrong = append(r.wrong, news(s.changed(nil), old)...)
	s.end(&r, k)
	allow := k.allow
	if allow == 0 {
		allow = time.Second
	}
	r.gap, silent = s.gaps(k.without, mute, begin, time.Now(), s.quiet+allow, max(1, k.gaps))
	for _, what := range news(s.recover(old), old) {
		r.wrong = append(r.wrong, fmt.Sprintf("%v after the end: %s", recoverLimit, what))
	}
	s.step("%s: sent %d (%s); longest silence %d ms, grown by %.0f MiB, %.0f %% CPU", k.attack, r.sent, r.counts, r.gap.Milliseconds(), r.rss, 100*r.cpu)
	return r, silent
}

// end ends an attack, and enters what was sent.
func (s *siege) end(r *result, k strike) {
	s.t.Helper()
	var counts []string
	for _, a := range k.by {
		got, err := a.end(s.ctx, k.attack)
		s.must(err)
		if r.sent += got["sent"]; got["sent"] == 0 {
			r.wrong = append(r.wrong, a.Name()+" has sent nothing")
		}
		for what, n := range got {
			if what != "sent" {
				counts = append(counts, fmt.Sprintf("%s %d", what, n))
			}
		}
	}
	slices.Sort(counts)
	r.counts = strings.Join(counts, ", ")
}

// usage is that of the honest agents that run.
func (s *siege) usage() map[*Node]usage {
	s.t.Helper()
	all := make(map[*Node]usage)
	for _, n := range s.honest {
		if _, ended := s.ended(n); !ended {
			all[n] = s.use(n)
		}
	}
	return all
}

// measure enters what honest agents needed during an attack.
func (s *siege) measure(r *result, before map[*Node]usage, took time.Duration) {
	s.t.Helper()
	for n, now := range s.usage() {
		r.rss = max(r.rss, now.rss-s.used[n].rss)
		spent := now.cpu - before[n].cpu
		if spent < 0 {
			spent = now.cpu // it was started anew
		}
		r.cpu = max(r.cpu, spent.Seconds()/took.Seconds())
	}
	if r.cpu > cpuShare {
		r.wrong = append(r.wrong, fmt.Sprintf("an honest agent took %.0f %% of a processor, want %.0f %% at most", 100*r.cpu, 100*cpuShare))
	}
	if r.rss > rssGrowth {
		r.wrong = append(r.wrong, fmt.Sprintf("an honest agent grew by %.0f MiB, want %d at most", r.rss, rssGrowth))
	}
}

// conclude enters a line of the table, and fails the test for what is wrong.
func (s *siege) conclude(r result) {
	s.t.Helper()
	s.results = append(s.results, r)
	if len(r.wrong) > 0 {
		const most = 8
		more := ""
		if n := len(r.wrong) - most; n > 0 {
			more = fmt.Sprintf("\n  and %d more", n)
		}
		s.t.Errorf("%s:\n  %s%s", r.attack, strings.Join(r.wrong[:min(most, len(r.wrong))], "\n  "), more)
	}
}

// news are those that are not old.
func news(all []string, old map[string]bool) []string {
	return slices.DeleteFunc(all, func(what string) bool { return old[what] })
}

// given are the orders for an attacker.
func (s *siege) given(a *attacker, long time.Duration) (o orders) {
	o.Token, o.Seed, o.For, o.Friends = s.tokens[a], s.seed, long, []string{s.evil.Name(), s.mole.Name()}
	o.Victim, o.At, o.Routes = s.alice.Name(), s.bystander.Addr4(), prefixes(s.phoneAddr)
	o.Name, o.Address = s.founder.Name(), s.base[s.founder].Self.Addresses[0]
	return o
}

func (s *siege) ended(n *Node) (error, bool) {
	select {
	case <-n.Agent().Done():
		return n.Agent().Wait(s.ctx), true
	default:
		return nil, false
	}
}

// recoverLimit is how long after an attack all may take to be as it was before.
const recoverLimit = 5 * time.Second

// recover starts agents anew that have ended, and returns what is not in order again after a while, beside what is old.
func (s *siege) recover(old map[string]bool) []string {
	s.t.Helper()
	for _, n := range s.honest {
		if _, ended := s.ended(n); ended {
			s.kill(n)
			s.must(n.Launch(s.start(n)...))
		}
	}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		left := append(s.mute(nil), s.changed(nil)...)
		if len(news(slices.Clone(left), old)) == 0 || time.Since(begin) > recoverLimit {
			return left
		}
	}
}

// table prints what came of each attack.
func (s *siege) table() {
	var out strings.Builder
	fmt.Fprintf(&out, "WARREN_SEED=%d\n%-16s %8s %8s %7s %5s  %s\n", s.seed, "attack", "sent", "silence", "memory", "CPU", "result")
	for _, r := range s.results {
		verdict := "contained"
		if len(r.wrong) > 0 {
			verdict = "NOT CONTAINED: " + r.wrong[0]
			if len(r.wrong) > 1 {
				verdict += fmt.Sprintf(" (and %d more)", len(r.wrong)-1)
			}
		}
		fmt.Fprintf(&out, "%-16s %8d %5d ms %3.0f MiB %3.0f %%  %s\n", r.attack, r.sent, r.gap.Milliseconds(), r.rss, 100*r.cpu, verdict)
	}
	s.t.Log(out.String())
}
