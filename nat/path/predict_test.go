package path

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
)

// punches returns the addresses in the Punch outputs.
func punches(out []Output) (to []netip.AddrPort) {
	for _, o := range out {
		if p, ok := o.(Punch); ok {
			to = append(to, p.To...)
		}
	}
	return to
}

// told returns the predictions in the messages sent.
func told(out []Output) (list []Predicted) {
	for _, o := range out {
		if s, ok := o.(Send); ok && len(s.Message.Predicted.Ports) > 0 {
			list = append(list, s.Message.Predicted)
		}
	}
	return list
}

// trying returns a controlled machine with a running attempt 5 whose peer told one candidate.
func tryingMachine(now time.Time) *Machine {
	m := New(Config{Self: identity.NodeID{2}, Peer: identity.NodeID{1}, Instance: [8]byte{2}}, now)
	m.Step(now, Local{Candidates: []Candidate{NewCandidate(Host, netip.MustParseAddrPort("192.0.2.1:9277"), 0)}})
	m.Step(now, Received{Message{
		Kind: KindOffer, Attempt: 5, Instance: [8]byte{1}, Ufrag: "theirufr", Pwd: "theirpasswordtheirpassword",
		Candidates: []string{
			NewCandidate(Host, netip.MustParseAddrPort("192.168.1.1:9277"), 0).String(),
			NewCandidate(ServerReflexive, netip.MustParseAddrPort("203.0.113.1:4000"), 0).String(),
		},
	}})
	return m
}

func predictedMessage(attempt uint64, addr string, ports ...uint16) Received {
	return Received{Message{
		Kind: KindCandidates, Attempt: attempt, Instance: [8]byte{1}, Predicted: Predicted{Addr: netip.MustParseAddr(addr), Ports: ports},
	}}
}

func TestPredictedPortsArePunched(t *testing.T) {
	now := time.Unix(1e9, 0)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), port) }
	m := tryingMachine(now)
	step := func(what string, in Input, want ...netip.AddrPort) {
		t.Helper()
		out, _ := m.Step(now, in)
		if got := punches(out); !slices.Equal(got, want) {
			t.Errorf("%s: got punches %v, want %v", what, got, want)
		}
	}
	step("as told", predictedMessage(5, "203.0.113.1", 4001, 4002), at(4001), at(4002))
	step("repeated", predictedMessage(5, "203.0.113.1", 4001, 4002))
	step("grown", predictedMessage(5, "203.0.113.1", 4001, 4003), at(4003))
	step("of another attempt", predictedMessage(4, "203.0.113.1", 4004))
	step("at an address that is no candidate", predictedMessage(5, "203.0.113.2", 4004))
	step("at a private address", predictedMessage(5, "192.168.1.1", 4004))
	step("low ports", predictedMessage(5, "203.0.113.1", 0, 22, 1023, 1024), at(1024))
	punched := 4
	for base := uint16(5000); base < 6000; base += MaxPredicted {
		var ports []uint16
		for i := range uint16(MaxPredicted) {
			ports = append(ports, base+i)
		}
		out, _ := m.Step(now, predictedMessage(5, "203.0.113.1", ports...))
		punched += len(punches(out))
	}
	if punched != MaxPredicted {
		t.Errorf("got %d addresses punched in one attempt, want %d", punched, MaxPredicted)
	}
	m.Step(now, Nominated{Attempt: 5, Addr: at(4001)})
	step("after the attempt", predictedMessage(5, "203.0.113.1", 4009))
}

func TestOwnPredictionIsTold(t *testing.T) {
	now := time.Unix(1e9, 0)
	m := tryingMachine(now)
	own := Predicted{Addr: netip.MustParseAddr("198.51.100.1"), Ports: []uint16{2001, 2002}}
	if out, _ := m.Step(now, OwnPredicted{Attempt: 4, Predicted: own}); len(told(out)) != 0 {
		t.Errorf("got %v told for an attempt that is over, want nothing", told(out))
	}
	out, wake := m.Step(now, OwnPredicted{Attempt: 5, Predicted: own})
	if got := told(out); len(got) != 1 || !slices.Equal(got[0].Ports, own.Ports) {
		t.Errorf("got %v told, want %v at once", got, own)
	}
	repeats := 0
	for range 20 {
		out, wake = m.Step(wake, Wake{})
		repeats += len(told(out))
		if wake.IsZero() || wake.Sub(now) > 2*time.Second {
			break
		}
	}
	if repeats != len(trickleAgain) {
		t.Errorf("got the prediction repeated %d times, want %d: signals may be lost", repeats, len(trickleAgain))
	}
	m.Step(wake, predictedMessage(5, "203.0.113.1", 4001)) // the attempt has ended, the next one begins without it
	out, _ = m.Step(wake, Received{Message{
		Kind: KindOffer, Attempt: 6, Instance: [8]byte{1}, Ufrag: "theirufr", Pwd: "theirpasswordtheirpassword",
	}})
	more, _ := m.Step(wake, Local{Candidates: []Candidate{NewCandidate(ServerReflexive, netip.MustParseAddrPort("198.51.100.1:77"), 0)}})
	if got := told(append(out, more...)); len(got) != 0 {
		t.Errorf("got %v told in the next attempt, want nothing", got)
	}
}
