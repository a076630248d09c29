//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// outcast revokes both while they attack, and asserts that within five seconds nothing of them is left, and nothing comes back.
func (s *siege) outcast() {
	s.t.Helper()
	s.relayedByEvil(2) // which is to end as well; after all that it has done, it may be avoided
	both := []*attacker{s.evil, s.mole}
	var last []string
	start := func(attacks ...string) {
		last = append(last, attacks...)
		for _, attack := range attacks {
			for _, a := range both {
				s.must(a.begin(s.ctx, attack, s.given(a, 10*time.Second)))
			}
		}
	}
	start("forged-records", "strangers", "signals", "forwarding")
	time.Sleep(time.Second)
	begin, before := time.Now(), s.usage()
	r := result{attack: "after revocation"}
	for _, a := range both {
		if _, err := s.founder.Warren(s.ctx, "", "revoke", s.ids[a.Name()].String(), "--cascade", "--reason", "hostile"); err != nil {
			r.wrong = append(r.wrong, err.Error())
		}
	}
	const limit = 5 * time.Second
	left := s.remains(both, 0)
	for len(left) > 0 && time.Since(begin) < limit {
		time.Sleep(100 * time.Millisecond)
		left = s.remains(both, 0)
	}
	s.step("after %.1f s %d things of the revoked are left", time.Since(begin).Seconds(), len(left))
	for _, what := range left {
		r.wrong = append(r.wrong, fmt.Sprintf("%v after the revocation: %s", limit, what))
	}
	if len(left) == 0 {
		// Then they make more nodes out of their token, which may have sessions as any stranger, for a while, and nothing else.
		start("backdate")
		back := make(map[string]bool)
		for again := time.Now(); time.Since(again) < max(3*time.Second, s.length); time.Sleep(200 * time.Millisecond) {
			for _, what := range s.remains(both, 2*strangersAtOnce) {
				if !back[what] {
					back[what] = true
					r.wrong = append(r.wrong, fmt.Sprintf("%.1f s after the revocation, again: %s", time.Since(begin).Seconds(), what))
				}
			}
		}
	}
	for _, attack := range last {
		for _, a := range both {
			got, err := a.end(s.ctx, attack)
			s.must(err)
			r.sent += got["sent"]
		}
	}
	r.wrong = append(r.wrong, s.changed(nil)...)
	var silent []string
	r.gap, silent = s.gaps(nil, nil, begin, time.Now(), s.quiet+2*time.Second, 1) // relayed pairs lose their relay
	r.wrong = append(r.wrong, silent...)
	s.measure(&r, before, time.Since(begin))
	s.conclude(r)
}

// remains lists what is left of the attackers, and of the nodes that they have made, at honest nodes and in their own hands. The nodes may
// have so many sessions.
func (s *siege) remains(attackers []*attacker, sessions int) (list []string) {
	s.t.Helper()
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	bad := make(map[string]bool)
	for _, a := range attackers {
		bad[s.ids[a.Name()].String()] = true
		r, err := a.report(s.ctx)
		s.must(err)
		for _, id := range r.Made {
			bad[id.String()] = true
		}
		for _, id := range r.Sessions {
			if !slices.ContainsFunc(attackers, func(o *attacker) bool { return s.ids[o.Name()] == id }) && !bad[id.String()] {
				say("%s has a session with %s", a.Name(), id.Short())
			}
		}
		if len(r.Puppets) > sessions {
			say("nodes that %s has made have %d sessions: %s", a.Name(), len(r.Puppets), strings.Join(r.Puppets, ", "))
		}
	}
	keys := map[string]bool{s.phone.PublicKey.String(): true}
	good := map[string]bool{"": true}
	for _, n := range s.honest {
		keys[s.base[n].Self.PublicKey] = true
		good[n.Name()] = true
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range s.honest {
		all.Go(func() {
			found := s.remainsAt(n, bad, good, keys)
			mu.Lock()
			defer mu.Unlock()
			list = append(list, found...)
		})
	}
	all.Wait()
	return list
}

// remainsAt is remains for one honest node. A member that never ran, as the guests, has neither tunnel nor session.
func (s *siege) remainsAt(n *Node, bad, good, keys map[string]bool) (list []string) {
	say := func(format string, args ...any) { list = append(list, n.Name()+": "+fmt.Sprintf(format, args...)) }
	st, err := n.Status(s.ctx)
	if err != nil {
		say("%v", err)
		return list
	}
	keys = maps.Clone(keys)
	for _, p := range st.Peers {
		if bad[p.ID] {
			say("%s is a peer, %s, with %v", p.Name, p.State, p.Addresses)
			continue
		}
		if !good[p.Path.Via] || !good[p.Path.Standby] {
			say("the path to %s goes by %s, %s is ready", p.Name, p.Path.Via, p.Path.Standby)
		}
		keys[p.PublicKey] = keys[p.PublicKey] || strings.HasPrefix(p.Name, "guest") || p.Static
	}
	for _, a := range st.Self.Anchors {
		if !good[a] {
			say("%s is an anchor", a)
		}
	}
	if st.Relay != nil {
		for _, m := range st.Relay.Members {
			if m.Channels > 0 && !good[m.Name] {
				say("%s has %d relay channels", m.Name, m.Channels)
			}
		}
	}
	out, err := n.Host.Run(s.ctx, "wg", "show", "all", "peers")
	if err != nil {
		say("%v", err)
	}
	for line := range strings.Lines(out) {
		if _, key, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && !keys[key] {
			say("the WireGuard peer %s", key)
		}
	}
	return list
}
