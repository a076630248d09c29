package session

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/session/sessiontest"
)

// Whoever is refused for good is given what that rests on, whichever side dialled, and hears code and reason all the same.
func TestProofIsHandedOver(t *testing.T) {
	for name, dials := range map[string]int{"the refused side dials": 0, "the refusing side dials": 1} {
		for size, want := range map[int]string{100: "[100 3]", 32 << 10: "[32768 3]"} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 2, sessiontest.Options{Latency: lan})
					defer w.stop()
					out, member := w.nodes[0], w.nodes[1]
					out.start(nil)
					member.start(nil)
					w.mesh.Refuse(out.ID, &Refusal{Code: 0x101, Reason: "revoked", Proof: [][]byte{make([]byte, size), {1, 2, 3}}})
					w.nodes[dials].target(w.nodes[1-dials])
					time.Sleep(500 * time.Millisecond)
					expect(t, "session", out.up(member) || member.up(out), false)
					got := out.takeMessages()
					if len(got) == 0 || slices.ContainsFunc(got, func(m string) bool { return m != "1 proof "+want }) {
						t.Errorf("the refused side: got %q, want the proof, once or more", got)
					}
					expectList(t, "the refusing side's messages", member.takeMessages())
					expectList(t, "events of the refused side", out.takeEvents(), Event{Kind: Refused, ID: member.ID, Code: 0x101, Reason: "revoked"})
					expectList(t, "events of the refusing side", member.takeEvents())
				})
			})
		}
	}
}

// A node that refuses for a reason that may pass hands nothing over, and a far side that never says hello gets nothing and holds nobody up.
func TestNoProofForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		out, member := w.nodes[0], w.nodes[1]
		out.start(nil)
		member.start(nil)
		w.mesh.Refuse(out.ID, errors.New("its clock is wrong"))
		out.target(member)
		time.Sleep(500 * time.Millisecond)
		expectList(t, "messages", out.takeMessages())
		expectList(t, "events", out.takeEvents(), Event{Kind: Refused, ID: member.ID, Code: CodeRefused, Reason: "its clock is wrong"})
	})
}

func TestProofBounds(t *testing.T) {
	large := Refusal{Code: 0x100, Reason: "revoked", Proof: [][]byte{make([]byte, MaxProof-8), {7}, {8, 9}}}
	err := readProof(bytes.NewReader(appendProof(nil, large)[1:]))
	no, ok := errors.AsType[*refusal](err)
	if !ok || no.Code != 0x100 || no.Reason != "revoked" || len(no.records) != 1 || len(no.records[0]) != MaxProof-8 {
		t.Errorf("got %v, want as many records as fit", err)
	}
	for name, said := range map[string][]byte{
		"empty":              nil,
		"too long":           {0, 2, 0, 0},
		"too short":          {0, 0, 0, 9},
		"a passing code":     appendProof(nil, Refusal{Code: CodeRefused})[1:],
		"a reason too long":  {0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1},
		"a record too long":  {0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 1},
		"a record cut short": {0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0},
	} {
		err := readProof(bytes.NewReader(said))
		if _, ok := errors.AsType[*refusal](err); ok || !errors.Is(err, errMalformed) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v, want it malformed", name, err)
		}
	}
}

func FuzzProof(f *testing.F) {
	f.Add(appendProof(nil, Refusal{Code: 0x100, Reason: "revoked", Proof: [][]byte{{1, 2, 3}, {}}})[1:])
	f.Fuzz(func(t *testing.T, said []byte) {
		no, ok := errors.AsType[*refusal](readProof(bytes.NewReader(said)))
		if !ok {
			return
		}
		again, ok := errors.AsType[*refusal](readProof(bytes.NewReader(appendProof(nil, Refusal{Code: no.Code, Reason: no.Reason, Proof: no.records})[1:])))
		if !ok || again.Code != no.Code || again.Reason != no.Reason || !slices.EqualFunc(again.records, no.records, bytes.Equal) {
			t.Errorf("%x: got %+v again, want %+v", said, again, no)
		}
	})
}
