package roster

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// prepare has all verified that a batch brings about, and returns how many signatures that were.
func prepare(r *Roster, b *Batch) (verified int) {
	for b.Due(r) {
		verified += len(b.due)
		b.Verify()
	}
	return verified
}

// Nothing is left to verify within a step, whatever comes in which order; and what comes of it is the same as without a preparation.
func TestPreparedBatchesVerifyNothingWithin(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			m := randomMesh(t, random, seed%2 == 0)
			now := start.Add(time.Hour)
			recs := append([]record.Signed(nil), m.records...)
			for range len(recs) / 3 {
				recs = append(recs, spoilt(recs[random.IntN(len(recs))], random))
			}
			for range 6 {
				random.Shuffle(len(recs), func(i, j int) { recs[i], recs[j] = recs[j], recs[i] })
				prepared, plain := New(m.root.Cert), New(m.root.Cert)
				for rest := recs; len(rest) > 0; {
					n := 1 + random.IntN(min(len(rest), 8))
					b := Read(rest[:n])
					prepare(prepared, b)
					_, got := prepared.AddBatch(b, now)
					_, want := plain.AddAll(rest[:n], now)
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Fatalf("errors: got %v, want %v", got, want)
					}
					rest = rest[n:]
				}
				if prepared.judge.unprepared != 0 {
					t.Errorf("verified within steps: got %d signatures, want none", prepared.judge.unprepared)
				}
				if prepared.Digest() != plain.Digest() {
					t.Error("digest differs from that without a preparation")
				}
				selfCheck(t, plain)
			}
		})
	}
}

// spoilt returns a record with a byte of its signature, or of what is signed, turned round.
func spoilt(rec record.Signed, random *rand.Rand) record.Signed {
	rec.Body, rec.Signature = bytes.Clone(rec.Body), bytes.Clone(rec.Signature)
	if len(rec.Signature) > 0 && random.IntN(2) == 0 {
		rec.Signature[random.IntN(len(rec.Signature))] ^= 1
		return rec
	}
	rec.Body[random.IntN(len(rec.Body))] ^= 1
	return rec
}

// A forgery costs one verification, with others waiting for what it pretends to be too.
func TestForgeryCostsOneVerification(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 100}, at(0))
	r := New(m.root.Cert)
	_, _ = r.AddAll([]record.Signed{m.founder.rec, invite.rec}, at(1))
	admitter := m.join("admitter", invite, m.founder, at(1))
	for i := range 20 {
		waits := m.join(fmt.Sprint("n", i), invite, admitter, at(2))
		if out, err := r.Add(waits.rec, at(3)); err != nil || !out.Parked {
			t.Fatalf("got %+v, %v, want it parked", out, err)
		}
	}
	bad := admitter.rec
	bad.Signature = bytes.Clone(bad.Signature)
	bad.Signature[0] ^= 1
	b := Read([]record.Signed{bad})
	if got := prepare(r, b); got != 1 {
		t.Errorf("forged: got %d signatures verified, want 1", got)
	}
	r.judge.unprepared = 0
	if _, errs := r.AddBatch(b, at(3)); ReasonOf(errs[0]) != ReasonSignature || r.judge.unprepared != 0 {
		t.Errorf("forged: got %v and %d signatures verified within, want a refusal and none", errs[0], r.judge.unprepared)
	}
	// The rightful one has three, and the twenty that waited two each.
	b = Read([]record.Signed{admitter.rec})
	if got := prepare(r, b); got != 3+2*20 {
		t.Errorf("rightful: got %d signatures verified, want 43", got)
	}
	if out, errs := r.AddBatch(b, at(3)); errs[0] != nil || len(out.Changed) != 21 || r.judge.unprepared != 0 {
		t.Errorf("rightful: got %d members, %v, and %d signatures verified within, want 21 and none", len(out.Changed), errs[0], r.judge.unprepared)
	}
	if got := prepare(r, Read([]record.Signed{admitter.rec})); got != 0 {
		t.Errorf("known: got %d signatures verified, want none", got)
	}
	if got := prepare(r, Read([]record.Signed{m.word(admitter, 9, nil)})); got != 1 {
		t.Errorf("new word of a member: got %d signatures verified, want its own", got)
	}
	own := Read([]record.Signed{m.word(admitter, 10, nil)})
	own.Trust()
	if got := prepare(r, own); got != 0 {
		t.Errorf("own word: got %d signatures verified, want none", got)
	}
}

// What must wait itself makes nobody verify what waits for it: anybody can make such records.
func TestWaitingRecordCostsOneVerification(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 100}, at(0))
	unknown := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 100}, at(0))
	first := m.join("first", unknown, m.founder, at(1))
	second := m.join("second", unknown, first, at(2))
	r := New(m.root.Cert)
	_, _ = r.AddAll([]record.Signed{m.founder.rec, invite.rec, first.rec}, at(3))
	for i := range 20 {
		_, _ = r.Add(m.join(fmt.Sprint("n", i), invite, second, at(3)).rec, at(4))
	}
	b := Read([]record.Signed{second.rec})
	if got := prepare(r, b); got != 1 {
		t.Errorf("got %d signatures verified, want 1", got)
	}
	r.judge.unprepared = 0
	if out, errs := r.AddBatch(b, at(4)); errs[0] != nil || !out.Parked || r.judge.unprepared != 0 {
		t.Errorf("got %+v, %v, and %d signatures verified within, want it parked and none", out, errs[0], r.judge.unprepared)
	}
	// With the invite all can be verified: it itself, two nodes' certificates and admissions, and those of the twenty.
	b = Read([]record.Signed{unknown.rec})
	if got := prepare(r, b); got != 1+2*2+2*20 {
		t.Errorf("with the invite: got %d signatures verified, want 45", got)
	}
	if out, errs := r.AddBatch(b, at(4)); errs[0] != nil || len(out.Changed) != 22 || r.judge.unprepared != 0 {
		t.Errorf("with the invite: got %d members, %v, and %d signatures verified within, want 22 and none", len(out.Changed), errs[0], r.judge.unprepared)
	}
}
