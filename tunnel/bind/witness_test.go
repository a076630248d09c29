package bind

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"warren/mesh/identity"
	natpath "warren/nat/path"
)

// What the device has not vouched for is no sign of life, wherever it came from.
func TestWitness(t *testing.T) {
	begin := time.Unix(1e9, 0)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	type look struct {
		ms                   int
		authentic, elsewhere uint64
		byPath, want         int // -1: never
	}
	for name, looks := range map[string][]look{
		"a path that lives":                     {{0, 0, 0, -1, -1}, {200, 800, 0, 190, 190}, {400, 1600, 0, 390, 390}},
		"forged by the path":                    {{0, 800, 0, 0, 0}, {200, 800, 0, 199, 0}, {400, 800, 0, 399, 0}, {9000, 800, 0, 8999, 0}},
		"authentic from elsewhere, forged here": {{0, 800, 0, 0, 0}, {200, 1600, 800, 199, 0}, {400, 2400, 1600, 399, 0}},
		"the device is behind":                  {{0, 800, 0, 0, 0}, {200, 800, 900, 199, 0}, {300, 1700, 900, 299, 0}},
		"both at once":                          {{0, 800, 0, 0, 0}, {200, 2000, 800, 180, 180}},
		"forged elsewhere hides it for a while": {{0, 800, 0, 0, 0}, {200, 900, 5000, 190, 0}, {2000, 900, 5000, 190, 0}, {2200, 1000, 5000, 2190, 2190}},
		"a new peer in the device":              {{0, 800, 0, 0, 0}, {200, 0, 0, 199, 0}, {400, 100, 0, 399, 399}},
	} {
		var w witness
		for _, l := range looks {
			var byPath, want time.Time
			if l.byPath >= 0 {
				byPath = at(l.byPath)
			}
			if l.want >= 0 {
				want = at(l.want)
			}
			if got := w.see(at(l.ms), l.authentic, l.elsewhere, byPath); !got.Equal(want) {
				t.Errorf("%s: at %d ms: got %v, want %v", name, l.ms, got, want)
			}
		}
	}
}

// spoofed is a path whose far side is dead or alive, and somebody who forges packets from there, seen by the machine that watches
// it. It returns how long after its death the path was given up; limit if it was not.
func spoofed(t *testing.T, forge bool, limit time.Duration) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		b, _, feed := scripted(t)
		defer b.Close()
		e := b.NewEndpoint([32]byte{1})
		there := addr("192.0.2.1:1")
		m := natpath.New(natpath.Config{Self: identity.NodeID{2}, Peer: identity.NodeID{1}, Seed: [32]byte{3}}, time.Now())
		var open []uint64
		var wake time.Time
		var authentic uint64
		gone := false
		step := func(in natpath.Input) {
			out, at := m.Step(time.Now(), in)
			wake = at
			for _, o := range out {
				switch o := o.(type) {
				case natpath.Check:
					open = append(open, o.ID)
				case natpath.Report:
					e.SetPath(o.Event.Path.Addr)
					gone = o.Event.Path.Kind == natpath.None
				}
			}
		}
		step(natpath.Local{Candidates: []natpath.Candidate{natpath.NewCandidate(natpath.Host, addr("192.0.2.9:9"), 0)}})
		step(natpath.Received{Message: natpath.Message{
			Kind: natpath.KindOffer, Attempt: 7, Ufrag: "theirufr", Pwd: strings.Repeat("t", 24),
			Candidates: natpath.Lines([]natpath.Candidate{natpath.NewCandidate(natpath.Host, there, 0)}),
		}})
		step(natpath.Nominated{Attempt: 7, Addr: there})
		pass := func(d time.Duration, alive, forge bool) {
			for end := time.Now().Add(d); time.Now().Before(end) && !gone; time.Sleep(time.Millisecond) {
				ms := time.Now().UnixMilli()
				if alive {
					for _, id := range open {
						step(natpath.CheckAnswered{ID: id})
					}
					if ms%20 == 0 {
						feed(sent{there, message(4)})
						authentic += uint64(len(message(4)))
					}
				}
				open = nil
				if forge {
					feed(sent{there, message(4)}, sent{there, message(2)}, sent{there, message(1)}, sent{there, message(3)})
				}
				if ms%20 == 0 {
					transmit(t, b, e, message(4))
				}
				if !wake.IsZero() && !wake.After(time.Now()) {
					a := e.Vouched(authentic)
					step(natpath.Wake{LastTx: a.LastTx, LastRx: a.LastRx})
				}
			}
		}
		pass(10*time.Second, true, forge)
		if gone {
			t.Fatal("the path was given up while it lived")
		}
		death := time.Now()
		pass(limit, false, forge)
		took = time.Since(death)
	})
	return took
}

// A spoofer at full speed keeps no dead path alive, and has none given up that lives.
func TestSpooferKeepsNoDeadPath(t *testing.T) {
	normal := spoofed(t, false, time.Minute)
	forged := spoofed(t, true, time.Minute)
	t.Logf("a dead path is given up after %s, under forged packets after %s", normal, forged)
	if normal > 3*time.Second || forged > normal+time.Second {
		t.Errorf("got %s, and %s under forged packets, want 3 s and a second more at most", normal, forged)
	}
}

// The same with a device that decides: 1,000 forged packets of each kind leave no sign, one of the peer's does.
func TestDeviceVouches(t *testing.T) {
	a, b := startNode(t, conn.NewStdNetBind(), "10.0.0.1"), startNode(t, conn.NewStdNetBind(), "10.0.0.2")
	ea, eb := a.peer(b, true), b.peer(a, false)
	ea.SetPath(b.addr)
	eb.SetPath(a.addr)
	exchange := func(number uint32) {
		t.Helper()
		b.ping(a, number)
		if n, ok := a.number(30 * time.Second); !ok || n != number {
			t.Fatalf("got %d, %v, want ping %d", n, ok, number)
		}
	}
	exchange(1)
	before := ea.Vouched(a.authentic(b))
	if before.LastRx.IsZero() {
		t.Fatal("got no sign of life of a peer that has sent")
	}
	flood(t, a.bind, b.addr, 1000)
	if got := ea.Vouched(a.authentic(b)); !got.LastRx.Equal(before.LastRx) || got.RxPackets < before.RxPackets+3000 {
		t.Errorf("got %+v after forged packets, want more packets and the sign of life of before, %v", got, before.LastRx)
	}
	exchange(2)
	if got := ea.Vouched(a.authentic(b)); !got.LastRx.After(before.LastRx) {
		t.Errorf("got the sign of life of %v, want a later one than %v", got.LastRx, before.LastRx)
	}
}

// authentic asks the device how many bytes of another it has authenticated.
func (n *node) authentic(other *node) (bytes uint64) {
	n.t.Helper()
	text, err := n.dev.IpcGet()
	if err != nil {
		n.t.Fatal(err)
	}
	public := other.key.PublicKey()
	_, text, _ = strings.Cut(text, "public_key="+hex.EncodeToString(public[:]))
	for line := range strings.Lines(text) {
		if k, _ := fmt.Sscanf(line, "rx_bytes=%d", &bytes); k == 1 {
			break
		}
	}
	return bytes
}

// flood feeds what the device would be given of somebody who forges an address. The device itself drops all of it.
func flood(t *testing.T, b *Bind, from netip.AddrPort, n int) {
	t.Helper()
	e, known := b.sources.lookup(from)
	if !known || e == nil {
		t.Fatalf("%v is nobody's", from)
	}
	now := nanos()
	for range n {
		for _, kind := range []byte{2, 3, 4} {
			e.yields(message(kind), now)
			e.received(from, 1, len(message(kind)), now)
		}
	}
}

// What seems to be an answer does not let the peer's initiation undo ours.
func TestForgedAnswersEndNoCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, feed := scripted(t)
		defer b.Close()
		e := b.NewEndpoint([32]byte{1})
		there := addr("192.0.2.1:1")
		e.SetControlling(true)
		e.SetPath(there)
		transmit(t, b, e, message(1))
		for range 100 {
			if got := feed(sent{there, message(2)}, sent{there, message(3)}); len(got) != 2 {
				t.Fatalf("got %d answers handed to the device, want both", len(got))
			}
		}
		if got := feed(sent{there, message(1)}); len(got) != 0 {
			t.Error("got the peer's initiation handed to the device right after ours, want it dropped")
		}
		time.Sleep(crossing)
		if got := feed(sent{there, message(1)}); len(got) != 1 {
			t.Error("got the peer's initiation dropped half a second after ours, want it handed to the device")
		}
	})
}
