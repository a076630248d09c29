//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestWhy asserts that netcheck tells what each network does, and that why names the cause and the remedy: for two homes whose
// routers map by destination, a network that drops UDP, a router that maps ports, a machine that is off, and a name that
// nobody has.
func TestWhy(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	founder, second := bed.node("founder", nil), bed.node("second", nil)
	a := bed.node("a", bed.Router("home-a", natlab.Symmetric))
	b := bed.node("b", bed.Router("home-b", natlab.Symmetric))
	plain := bed.node("plain", bed.Router("home-plain", natlab.EIMAPDF))
	strict := bed.node("strict", bed.Router("home-strict", natlab.UDPBlocked))
	bed.must(Found(bed.ctx, "home", founder, second, a, b, plain, strict))
	bed.connected(a, b, api.PathRelay)
	bed.connected(a, plain, api.PathRelay)

	bed.step("two homes that map by destination")
	for _, n := range []*Node{a, b} {
		bed.netcheck(n, func(r api.Netcheck) bool {
			const by = "address-and-port-dependent"
			return r.Verdict == api.NetHard && r.IPv4.Mapping == by && r.IPv4.Filtering == by && r.IPv4.Answered == 2
		}, "address-and-port-dependent", "UPnP")
	}
	bed.eventually("a knows all of b", func() bool { return bed.asked(a, "b").There.Filtering == "address-and-port-dependent" })
	w := bed.why(a, b, "both-map-by-destination", "the routers of a and b both map ports by destination", "UPnP", "9277", "no answer to", "relay")
	if !w.Here.Known || !w.There.Known || w.There.Mapping != "address-and-port-dependent" || len(w.Attempts) == 0 || len(w.Changes) == 0 {
		t.Errorf("why: got %+v, want where both stand, attempts and changes", w)
	}
	bed.step("a home that maps by destination and one that filters by port")
	bed.why(plain, a, "maps-by-destination", "the router of a maps ports by destination")

	out, err := plain.Warren(bed.ctx, "", "ping", "a", "--until-direct", "-c", "2", "-i", "100ms")
	if ExitCode(errors.Unwrap(err)) != 1 || !strings.Contains(out, "via relay") || !strings.Contains(err.Error(), "warren why a") {
		t.Errorf("ping --until-direct of a relayed peer: got %q, %v, want answers by the relay, exit code 1 and where to ask", out, err)
	}

	bed.step("a home that has one address for all")
	bed.netcheck(plain, func(r api.Netcheck) bool {
		kept := r.IPv4.PortKept
		return r.IPv4.Mapping == "endpoint-independent" && r.IPv4.Filtering == "address-and-port-dependent" && kept != nil && *kept
	}, "likely with all peers but")
	bed.step("hosts on the Internet")
	bed.netcheck(founder, func(r api.Netcheck) bool {
		return r.Verdict == api.NetOpen && r.IPv4.Mapping == "none" && r.IPv6.UDP == api.UDPWorks
	}, "with every peer")
	bed.connected(founder, plain, api.PathDirect)
	bed.why(founder, plain, "direct", "plain is reached directly", "answered, chosen")
	_, err = founder.Warren(bed.ctx, "", "ping", "plain", "--until-direct")
	bed.must(err)

	bed.step("a network that drops UDP")
	bed.netcheck(strict, func(r api.Netcheck) bool {
		return r.Verdict == api.NetBlocked && r.IPv4.UDP == api.UDPSilent && r.Streams.InUse && !r.Portal.Suspected
	}, "drops UDP", "in use")
	bed.why(strict, plain, "udp-blocked-here", "UDP does not get through on this network", "let UDP out of the network of strict")
	bed.why(plain, strict, "udp-blocked-there", "let UDP out of the network of strict")
	bed.why(founder, strict, "udp-blocked-there", "strict is reached by a TCP stream", "strict says that UDP does not get through on its network")
	bed.judge(strict, founder, []string{"udp-blocked-here"})

	bed.step("a machine that is off")
	bed.kill(b)
	bed.Cut(b.Host)
	bed.eventually("it is known to be off", func() bool { return bed.asked(a, "b").Verdict == "off" })
	bed.why(a, b, "off", "b is not reached", "switched off or offline", "start b")

	bed.step("names that nobody has")
	_, err = a.Warren(bed.ctx, "", "why", "plian")
	if err == nil || !strings.Contains(err.Error(), `no member is called "plian"`) || !strings.Contains(err.Error(), "did you mean plain?") {
		t.Errorf("why plian: got %v, want the names that are near", err)
	}
	_, err = founder.Warren(bed.ctx, "", "revoke", "b")
	bed.must(err)
	bed.eventually("a knows that b is revoked", func() bool { return bed.asked(a, "b").Verdict == "revoked" })
}

// TestWhyMapped asserts that netcheck tells of a router that maps the port, and that two homes of which one has it meet.
func TestWhyMapped(t *testing.T) {
	t.Parallel()
	if err := natlab.CheckMapping(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.Symmetric)
	home.OfferMapping(natlab.MappingProtocols{UPnP: true})
	founder, second, mapped := bed.node("founder", nil), bed.node("second", nil), bed.node("mapped", home)
	hard := bed.node("hard", bed.Router("hard-home", natlab.Symmetric))
	bed.must(Found(bed.ctx, "home", founder, second, mapped, hard))
	_, err := mapped.Wait(bed.ctx, "it is an anchor", func(s api.Status) bool { return s.Self.Anchor })
	bed.must(err)
	bed.netcheck(mapped, func(r api.Netcheck) bool {
		return r.Verdict == api.NetOpen && len(r.Routers) == 1 && r.Routers[0].Mapping != nil && r.Routers[0].Mapping.Public
	}, "UPnP maps "+home.Mapped().String(), "can be reached", "with every peer")
	bed.connected(hard, mapped, api.PathDirect)
	if w := bed.why(hard, mapped, "direct", "mapped is reached directly"); w.There.PortMapping != "mapped" {
		t.Errorf("why: got %+v, want a port mapping there", w.There)
	}
}

// netcheck runs it as a person would, and asserts that the report fits a screen, holds the words and is what is wanted (nil: anything). On a machine where
// probes come late it is asked again.
func (b *bed) netcheck(n *Node, wanted func(api.Netcheck) bool, words ...string) {
	b.t.Helper()
	var out string
	var report api.Netcheck
	for range 5 {
		var err error
		out, err = n.Warren(b.ctx, "", "netcheck")
		b.must(err)
		raw, err := n.Warren(b.ctx, "", "netcheck", "--json")
		b.must(err)
		report = api.Netcheck{}
		b.must(json.Unmarshal([]byte(raw), &report))
		if missing(out, words) == "" && (wanted == nil || wanted(report)) && report.TookMS <= 4000 {
			break
		}
	}
	b.said(n, "netcheck", out, words)
	if wanted != nil && !wanted(report) {
		b.t.Errorf("netcheck on %s: got %s, %+v, %+v, %+v, %+v, %+v", n.Name(), report.Verdict, report.IPv4, report.IPv6, report.Routers, report.Streams, report.Portal)
	}
	if lines := strings.Count(out, "\n"); lines > 25 {
		b.t.Errorf("netcheck on %s: got %d lines, want 25 at most", n.Name(), lines)
	}
	if report.TookMS > 4000*crowd() {
		b.t.Errorf("netcheck on %s took %.0f ms, want 3 s", n.Name(), report.TookMS)
	}
}

// why asks one node about another until the verdict is the one wanted, and asserts that the report holds the words. Between the two questions things
// may have changed for a moment: then both are asked again.
func (b *bed) why(n, about *Node, verdict string, words ...string) (answer api.Why) {
	b.t.Helper()
	var out string
	for again := range 5 {
		b.eventually("why "+about.Name()+" on "+n.Name()+" says "+verdict, func() bool {
			answer = b.asked(n, about.Name())
			return answer.Verdict == verdict
		})
		var err error
		out, err = n.Warren(b.ctx, "", "why", about.Name())
		b.must(err)
		if missing(out, words) == "" {
			break
		}
		time.Sleep(time.Duration(again) * 500 * time.Millisecond)
	}
	b.said(n, "why "+about.Name(), out, words)
	return answer
}

func (b *bed) asked(n *Node, peer string) (answer api.Why) {
	b.t.Helper()
	out, err := n.Warren(b.ctx, "", "why", "--json", peer)
	b.must(err)
	b.must(json.Unmarshal([]byte(out), &answer))
	return answer
}

// said logs an output, and asserts that it holds the words.
func (b *bed) said(n *Node, command, out string, words []string) {
	b.t.Helper()
	b.t.Logf("%s: warren %s\n%s", n.Name(), command, out)
	if w := missing(out, words); w != "" {
		b.t.Errorf("%s: warren %s: got\n%s\nwant %q in it", n.Name(), command, out, w)
	}
}

// missing returns the first of the words that an output does not hold, however it is broken into lines; "" for none.
func missing(out string, words []string) string {
	flat := strings.Join(strings.Fields(out), " ")
	if i := slices.IndexFunc(words, func(w string) bool { return !strings.Contains(flat, w) }); i >= 0 {
		return words[i]
	}
	return ""
}
