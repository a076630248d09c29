package mesh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
)

// Somebody with a used-up invite makes a certificate of its own. It passes a handshake, and must learn nothing.
func TestStrangerIsGivenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5*time.Millisecond)
		crowd := w.crowd(50)
		a, b := w.pairWith(crowd)
		agree(t, 10*time.Second, a, b)
		seed, invite := a.invite(1)
		w.mustJoin("rightful", a, seed)

		stranger := w.newPeer("stranger")
		chain, err := a.Admission().InviteChain(invite)
		if err != nil {
			t.Fatal(err)
		}
		stranger.chain = append([]*x509.Certificate{stranger.certify(seed, a, invite)}, chain...)
		stranger.own.Admission = record.SignAdmission(a.meshID, stranger.chain[0].Raw, time.Now(), identity.GenerateKey())
		if _, err := a.VerifyChain(stranger.chain); err != nil {
			t.Fatalf("handshake: got %v, want it to pass, or this test tests nothing", err)
		}
		stranger.start()
		w.net.Link(stranger.id, a.id)
		time.Sleep(5 * time.Minute)
		if got := stranger.View().Records; got > 1 {
			t.Errorf("the stranger's records: got %d, want none but the invite out of its chain: it has dialled, and proved nothing", got)
		}
		if _, ok := a.View().Member(stranger.id); ok {
			t.Error("the stranger became a member")
		}

		// It asks outright, too.
		stranger.stop()
		got, _ := a.talk(stranger.id, appendFrame(appendFrame(appendFrame(nil, frameHello, append([]byte{syncVersion}, make([]byte, 16)...)),
			frameCompare, bytes.Repeat([]byte{0xff}, 32)), frameEnd, nil))
		if !bytes.Equal(got, appendFrame(appendFrame(nil, frameBuckets, unlike[:]), frameEnd, nil)) {
			t.Errorf("answer to the stranger: got %d bytes, want digests of nothing and no entry", len(got))
		}
		key, _ := crowd[0].Key()
		got, _ = a.talk(stranger.id, appendFrame(nil, frameAsk, appendEntry(nil, roster.Entry{Key: key})))
		if !bytes.Equal(got, appendFrame(nil, frameHas, []byte{0})) {
			t.Errorf("has: got %x, want no", got)
		}
	})
}

// talk opens a sync stream to a node as somebody, writes all of what is said, and returns what comes back until the end.
func (m *Mesh) talk(as identity.NodeID, said []byte) ([]byte, error) {
	near, far := net.Pipe()
	go m.HandleSync(as, far)
	go func() { _, _ = near.Write(said) }()
	_ = near.SetReadDeadline(time.Now().Add(time.Minute))
	return io.ReadAll(near)
}

func TestHostileSyncPeer(t *testing.T) {
	hello := appendFrame(nil, frameHello, append([]byte{syncVersion}, make([]byte, 16)...))
	compare := appendFrame(hello, frameCompare, bytes.Repeat([]byte{0xff}, 32))
	lots := bytes.Clone(compare)
	for range maxEntries/(maxFrame/entrySize) + 2 {
		lots = appendFrame(lots, frameEntries, make([]byte, maxFrame/entrySize*entrySize))
	}
	for name, said := range map[string][]byte{
		"nothing":            nil,
		"garbage":            bytes.Repeat([]byte{0xaa}, 4096),
		"another version":    appendFrame(nil, frameHello, append([]byte{9}, make([]byte, 16)...)),
		"records first":      appendFrame(nil, frameRecord, []byte{1}),
		"hello only":         hello,
		"entries first":      appendFrame(hello, frameEntries, make([]byte, entrySize)),
		"endless entries":    lots,
		"record unasked":     appendFrame(appendFrame(compare, frameEnd, nil), frameRecord, []byte{1, 2, 3}),
		"oversize frame":     append(bytes.Clone(hello), byte(frameEntries), 0xff, 0xff),
		"odd frame length":   append(bytes.Clone(hello), byte(frameEntries), 0, 47),
		"wants of a million": appendFrame(appendFrame(compare, frameEnd, nil), frameWant, make([]byte, maxFrame)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, time.Millisecond)
				a := w.founder("a").start()
				seed, _ := a.invite(1)
				b := w.mustJoin("b", a, seed)
				quiet(t, a)
				before := *a.book.public.digest.Load()
				start := time.Now()
				got, _ := a.talk(b.id, said)
				if took := time.Since(start); took > syncIdle+time.Second {
					t.Errorf("held for %s, want at most %s", took, syncIdle)
				}
				if len(got) > 8<<10 {
					t.Errorf("answer of %d bytes", len(got))
				}
				if *a.book.public.digest.Load() != before {
					t.Error("the store has changed")
				}
			})
		})
	}
}

// Forged and foreign records in messages are counted and go nowhere.
func TestBadRecordsGoNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a, b := w.pairWith(nil)
		agree(t, 10*time.Second, a, b)
		time.Sleep(time.Minute)
		other := newWorld(t, 0).crowd(3)
		forged := a.writer.ownSigned()
		forged.Body = bytes.Clone(forged.Body)
		forged.Body[len(forged.Body)-1] ^= 1
		victim, thief := a.writer.ownNode(), identity.GenerateKey()
		victim.Seq += 5
		stolen, err := record.SignNode(a.meshID, victim, thief)
		if err == nil {
			t.Error("signing another's record: got nil, want an error")
		}
		w.net.ResetTraffic()
		before := *a.book.public.digest.Load()
		for _, signed := range append(other, forged, stolen) {
			encoded, _ := signed.Marshal()
			a.HandleMessage(b.id, straightMessage(encoded, 200))
		}
		a.HandleMessage(b.id, []byte{straight})
		a.HandleMessage(b.id, append([]byte{straight, 1}, bytes.Repeat([]byte{0xff}, 5000)...))
		a.HandleMessage(b.id, nil)
		for range 2000 {
			a.HandleMessage(b.id, []byte{straight, 1, 0xa0})
		}
		time.Sleep(time.Second)
		if *a.book.public.digest.Load() != before {
			t.Error("bad records changed the store")
		}
		t.Log(a.Dropped())
		for _, reason := range []string{"record: malformed", "record: too many", "gossip: malformed"} {
			if a.Dropped()[reason] == 0 {
				t.Errorf("dropped as %q: got none", reason)
			}
		}
	})
}

func TestOnlyItsOwnKeyWritesARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a, b := w.pairWith(nil)
		agree(t, 10*time.Second, a, b)
		seed, invite := a.invite(1)
		c := w.newPeer("c")
		cert := c.certify(seed, a, invite)
		admission, err := a.Admission().Admit(cert)
		if err != nil {
			t.Fatal(err)
		}
		node := c.own
		node.Seq, node.Certificate, node.Admission = 1, cert.Raw, admission
		signed, err := record.SignNode(a.meshID, node, c.key)
		if err != nil {
			t.Fatal(err)
		}
		signed.Signature = ed25519.Sign(b.key, signed.Body)
		if err := a.Admission().AddNode(signed); err == nil {
			t.Error("record of c signed by b: got nil, want a refusal")
		}
	})
}

func FuzzSyncAnswer(f *testing.F) {
	hello := appendFrame(nil, frameHello, append([]byte{syncVersion}, make([]byte, 16)...))
	f.Add(hello)
	f.Add(appendFrame(appendFrame(appendFrame(hello, frameCompare, bytes.Repeat([]byte{0xff}, 32)), frameEntries, make([]byte, 2*entrySize)), frameEnd, nil))
	f.Add(appendFrame(nil, frameAsk, make([]byte, entrySize)))
	f.Add([]byte{byte(frameEntries), 0, 0})
	root, err := identity.NewRoot(identity.GenerateKey(), identity.RootTerms{Name: "fuzz"}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	b, err := newBook(root, newSaver(nil), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	s := &syncer{book: b, intake: &intake{pace: newPace()}, asks: newAsks(), drops: newDrops(), isDirect: session.IsDirect, proof: &proof{book: b, sides: newSides()}, slots: newSlots()}
	f.Fuzz(func(t *testing.T, said []byte) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, near)
		}()
		go func() {
			_, _ = near.Write(said)
			_ = near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			time.AfterFunc(10*time.Millisecond, func() { _ = near.Close() })
		}()
		c := s.converse(identity.NodeID{1}, far, newSlot())
		_ = c.answer()
		_ = far.Close()
		<-done
	})
}

func FuzzSyncFrame(f *testing.F) {
	f.Add(appendFrame(nil, frameEntries, make([]byte, 2*entrySize)))
	f.Add(appendFrame(nil, frameWant, make([]byte, 3*keySize)))
	f.Add([]byte{byte(frameRecord), 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := readFrame(bytes.NewReader(p), make([]byte, maxFrame))
		if err != nil {
			return
		}
		again := appendFrame(nil, got.kind, got.payload)
		if !bytes.HasPrefix(p, again) {
			t.Errorf("frame %x came out as %x", p, again)
		}
		switch got.kind {
		case frameEntries:
			if out := appendEntries(nil, parseEntries(got.payload)); !bytes.Equal(out, again) {
				t.Errorf("entries %x came out as %x", again, out)
			}
		case frameWant:
			if out := appendKeys(nil, parseKeys(got.payload)); !bytes.Equal(out, again) {
				t.Errorf("keys %x came out as %x", again, out)
			}
		}
	})
}
