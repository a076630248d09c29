package path

import (
	"reflect"
	"testing"
	"time"
)

// tape is all that went into one machine, and what came out.
type tape struct {
	cfg    Config
	begun  time.Time
	frames []frame
}

type frame struct {
	at   time.Time
	in   Input
	out  []Output
	wake time.Time
}

// A machine is a function of its configuration and its inputs, with their times: whatever happened to a node can be played
// again. Nothing else, such as the order of a map or a clock, has a say.
func TestReplay(t *testing.T) {
	inputs := make(map[reflect.Type]int)
	for seed := range uint64(20) {
		for _, recorded := range eventful(t, seed).tapes {
			m := New(recorded.cfg, recorded.begun)
			for n, f := range recorded.frames {
				inputs[reflect.TypeOf(f.in)]++
				out, wake := m.Step(f.at, f.in)
				if !reflect.DeepEqual(out, f.out) || !wake.Equal(f.wake) {
					t.Fatalf("seed %d, machine of %s, input %d, %#v: got %+v and wake %s, want %+v and %s",
						seed, recorded.cfg.Self.Short(), n, f.in, out, wake, f.out, f.wake)
				}
			}
		}
	}
	for _, in := range []Input{
		Wake{}, Local{}, Received{}, Stirred{}, Routable{}, Unroutable{}, NetworkChanged{}, PeerChanged{}, Suspect{}, Introduce{}, RelayGone{},
		PairAnswered{}, Nominated{}, Failed{}, OwnPredicted{}, RelayOpened{}, CheckAnswered{}, PeerChecked{}, Proven{},
	} {
		if inputs[reflect.TypeOf(in)] == 0 {
			t.Errorf("got no %T replayed, want every kind of input", in)
		}
	}
}

// eventful runs two nodes through most of what can happen to them.
func eventful(t *testing.T, seed uint64) *world {
	w := newWorld(t, 1000+seed)
	w.loss = 0.2
	w.direct = seed%2 == 0
	w.signals = false
	w.start(0)
	w.start(1)
	w.run(time.Second, false)
	w.signals = true
	for i := range w.side {
		w.input(i, Routable{})
	}
	w.run(10*time.Second, true)
	w.input(0, OwnPredicted{Attempt: w.side[0].m.intro.try.number, Predicted: Predicted{Addr: w.side[0].addr.Addr(), Ports: []uint16{4001, 4002}}})
	w.direct = !w.direct
	w.run(30*time.Second, true)
	w.input(0, NetworkChanged{Local: Local{Candidates: []Candidate{NewCandidate(Host, netipPort(w.side[0].addr, 5000), 0)}, Relays: []RelayOffer{{Anchor: spareID}}}})
	w.side[0].addr = netipPort(w.side[0].addr, 5000)
	w.run(10*time.Second, false)
	w.start(1)
	w.input(0, PeerChanged{})
	w.run(10*time.Second, true)
	w.input(0, Introduce{})
	w.input(1, Suspect{})
	w.input(1, RelayGone{Anchor: spareID})
	w.run(time.Second, true)
	if try := w.side[1].m.intro.try; try.on {
		w.input(1, Failed{Attempt: try.number, Text: "no agent"})
	} else {
		w.input(1, Failed{})
	}
	w.dead = anchorID
	w.run(30*time.Second, true)
	return w
}
