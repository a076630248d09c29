package nat

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/path"
	"warren/nat/stunwire"
)

// The answer to a punch proves the address, and nothing else does.
func TestPunchAnswered(t *testing.T) {
	x, lane, items := newTestMux()
	x.trust(simID(2), []path.Credentials{ownCreds})
	if err := x.punch(ownCreds, theirCreds, remote4); err != nil {
		t.Fatal(err)
	}
	p, _ := stunwire.Inspect(lane.take()[0].raw)
	forged, _ := stunwire.Answer(p.ID, remote4, ownCreds.Pwd)
	x.dispatch(forged, remote4)
	unsigned, _ := stunwire.Answer(p.ID, remote4, "")
	x.dispatch(unsigned, remote4)
	if len(*items) != 0 || x.shown(ownCreds.Ufrag) {
		t.Errorf("got %v after forged answers, want nothing", *items)
	}
	good, _ := stunwire.Answer(p.ID, remote4, theirCreds.Pwd)
	x.dispatch(good, remote4)
	if len(*items) != 1 || (*items)[0].in != (path.Proven{From: remote4}) || !x.shown(ownCreds.Ufrag) {
		t.Errorf("got %v, want the address proven", *items)
	}
}

// A member that sends checks from many addresses, forged ones perhaps, does not get more of them checked than a peer has.
func TestAddressesOfAPeerAreBounded(t *testing.T) {
	x, lane, _ := newTestMux()
	x.trust(simID(2), []path.Credentials{ownCreds})
	agent := newAgentMux(x, simID(2), path.StartICE{Local: ownCreds, Remote: theirCreds}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9277")}, nil)
	x.addAgent(agent)
	seen := make(map[string]bool)
	buf := make([]byte, stunwire.MaxSize)
	for i := range 1000 {
		x.dispatch(mustCheck(t, theirCreds, ownCreds), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1234))
		for len(agent.v4.queue) > 0 {
			_, from, err := agent.v4.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			seen[from.String()] = true
		}
	}
	if len(seen) != maxTold || x.drops()["limited"] != 1000-maxTold {
		t.Errorf("got checks from %d addresses at the agent and drops %v, want %d", len(seen), x.drops(), maxTold)
	}
	if sent := lane.take(); len(sent) != 0 {
		t.Errorf("got %d packets sent by the mux, want none", len(sent))
	}
}

// A member that floods with authentic checks does not take the queue from the others.
func TestChecksAnsweredAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, lane, items := newTestMux()
		x.trust(simID(2), []path.Credentials{ownCreds})
		x.removeAgent(newAgentMux(x, simID(2), path.StartICE{Local: ownCreds, Remote: theirCreds}, nil, nil)) // its attempt is over
		check := mustCheck(t, theirCreds, ownCreds)
		for range 10 * checksAnswered {
			x.dispatch(check, remote4)
		}
		if answers := len(lane.take()); answers != checksAnswered || len(*items) != checksAnswered {
			t.Errorf("got %d answers and %d items at once, want %d", answers, len(*items), checksAnswered)
		}
		time.Sleep(time.Second)
		x.dispatch(check, remote4)
		if len(lane.take()) != 1 {
			t.Error("got no answer a second later, want one")
		}
	})
}

// Whatever arrives ends in an answer or a counter.
func FuzzDispatch(f *testing.F) {
	check, _, _ := checkRequest(ownCreds, theirCreds)
	answer, _ := stunwire.Answer(stunwire.ID{1}, remote6, theirCreds.Pwd)
	for _, raw := range [][]byte{check, stunwire.Probe(stunwire.ID{2}), answer, {}} {
		f.Add(raw)
	}
	f.Fuzz(func(_ *testing.T, raw []byte) {
		x, _, _ := newTestMux()
		x.trust(simID(2), []path.Credentials{ownCreds, theirCreds})
		x.dispatch(raw, remote4)
	})
}

func TestOnlyTheAskedAnswer(t *testing.T) {
	x, lane, items := newTestMux()
	if err := x.check(simID(2), path.Check{ID: 5, To: remote4, Own: ownCreds, Remote: theirCreds}); err != nil {
		t.Fatal(err)
	}
	p, _ := stunwire.Inspect(lane.take()[0].raw)
	good, _ := stunwire.Answer(p.ID, remote4, theirCreds.Pwd)
	x.dispatch(good, remote6)
	if len(*items) != 0 {
		t.Error("got an answer from another address taken, want it dropped")
	}
	x.dispatch(good, remote4)
	if len(*items) != 1 || (*items)[0].in != (path.CheckAnswered{ID: 5}) {
		t.Errorf("got %v, want the check answered", *items)
	}
	x.dispatch(good, remote4)
	if len(*items) != 1 {
		t.Error("got a replayed answer taken, want it dropped")
	}
	if err := x.check(simID(2), path.Check{ID: 6, To: remote4, Own: ownCreds, Remote: theirCreds}); err != nil {
		t.Fatal(err)
	}
	p, _ = stunwire.Inspect(lane.take()[0].raw)
	forged, _ := stunwire.Answer(p.ID, remote4, strings.Repeat("f", 24))
	x.dispatch(forged, remote4)
	if len(*items) != 1 || x.drops()["forged"] != 1 {
		t.Error("got a forged answer taken, want it dropped and counted")
	}
	good, _ = stunwire.Answer(p.ID, remote4, theirCreds.Pwd)
	x.dispatch(good, remote4)
	if len(*items) != 2 || (*items)[1].in != (path.CheckAnswered{ID: 6}) {
		t.Error("got the true answer dropped after a forged one, want it taken")
	}
}
