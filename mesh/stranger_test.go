package mesh

import (
	"bytes"
	"crypto/x509"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// withOldToken makes a node that has a certificate by an invite of a's which is used up: it passes handshakes, and is no member.
func (w *world) withOldToken(a *peer) *peer {
	w.t.Helper()
	seed, invite := a.invite(1)
	w.mustJoin("rightful", a, seed)
	stranger := w.newPeer("stranger")
	chain, err := a.Admission().InviteChain(invite)
	if err != nil {
		w.t.Fatal(err)
	}
	stranger.chain = append([]*x509.Certificate{stranger.certify(seed, a, invite)}, chain...)
	stranger.own.Admission = record.SignAdmission(a.meshID, stranger.chain[0].Raw, time.Now(), identity.GenerateKey())
	if _, err := a.VerifyChain(stranger.chain); err != nil {
		w.t.Fatalf("handshake: got %v, want it to pass, or this test tests nothing", err)
	}
	return stranger
}

// tap keeps all that a node is sent.
type tap struct {
	*Mesh
	mu   sync.Mutex
	seen bytes.Buffer
}

func (t *tap) note(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.Write(p)
}

func (t *tap) HandleMessage(from identity.NodeID, payload []byte) {
	t.note(payload)
	t.Mesh.HandleMessage(from, payload)
}

func (t *tap) HandleSync(from identity.NodeID, c net.Conn) {
	t.Mesh.HandleSync(from, tapped{c, t})
}

// tapped is a stream to a tap.
type tapped struct {
	net.Conn
	tap *tap
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tap.note(p[:n])
	return n, err
}

func (c tapped) Direct() bool { return true }

// Whoever has an old token is never shown a LAN secret, be it the admin's own, that of the admin behind another member, or what spreads while
// it has a session; whichever side dialled. From the side that it dialled it gets no record at all.
func TestStrangerGetsNoLANSecret(t *testing.T) {
	secret := [16]byte{0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	for _, tt := range []struct {
		name             string
		ofAdmin, dialled bool // the node that it meets is the admin; it is that node which dialled
		records          int  // beside the invite out of its own chain
	}{
		{"dials the admin", true, false, 0},
		{"dials a member", false, false, 0},
		{"is dialled by the admin", true, true, 0},
		{"is dialled by a member", false, true, 2}, // its record, and its invite: those of members rest on the admin's
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 5*time.Millisecond)
				a := w.founder("a")
				a.own.LANSecret = secret
				a.start()
				seed, _ := a.invite(1)
				b := w.mustJoin("b", a, seed).start()
				w.net.Link(a.id, b.id)
				stranger := w.withOldToken(a)
				if err := stranger.load(); err != nil {
					t.Fatal(err)
				}
				stranger.start()
				spy := &tap{Mesh: stranger.Mesh}
				w.net.Clone(stranger.place, stranger.id).Serve(spy)
				agree(t, 10*time.Second, a, b)
				at := b
				if tt.ofAdmin {
					at = a
				}
				if tt.dialled {
					w.net.Link(at.id, stranger.id)
				} else {
					w.net.Link(stranger.id, at.id)
				}
				time.Sleep(time.Minute)
				if err := a.Update(func(own *record.Node) { own.Name = "a2" }); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				// Asked outright.
				got, _ := at.talk(stranger.id, appendFrame(appendFrame(appendFrame(appendFrame(nil, frameHello, append([]byte{syncVersion}, make([]byte, 16)...)),
					frameCompare, bytes.Repeat([]byte{0xff}, 32)), frameEnd, nil), frameEnd, nil))
				spy.note(got)
				var records []record.Kind
				for _, signed := range stranger.book.roster.All() {
					records = append(records, signed.Kind)
				}
				if got := len(records) - 1; got > tt.records {
					t.Errorf("records that the stranger has: got %v, want %d beside its own invite", records, tt.records)
				}
				spy.mu.Lock()
				defer spy.mu.Unlock()
				if bytes.Contains(spy.seen.Bytes(), secret[:]) {
					t.Error("the stranger was sent the LAN secret")
				}
				if m, ok := b.View().Member(a.id); !ok || m.Record.LANSecret != secret || m.Name != "a2" {
					t.Errorf("the member b has %+v of a, want it with the secret", m.Record)
				}
			})
		})
	}
}

// Members that have never heard of each other become members to each other, whoever dials: the one that dials shows itself first.
func TestStrangersThatAreMembersMeet(t *testing.T) {
	for _, swapped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 5*time.Millisecond)
			a := w.founder("a")
			a.own.LANSecret = [16]byte{1, 2, 3}
			a.start()
			seed, _ := a.invite(3)
			d := w.mustJoin("d", a, seed).start()
			w.net.Link(a.id, d.id)
			agree(t, 10*time.Second, a, d)
			w.net.Cut(a.id, d.id) // each of the two admits one
			b, c := w.mustJoin("b", a, seed).start(), w.mustJoin("c", d, seed).start()
			_, known := b.View().Member(c.id)
			if _, back := c.View().Member(b.id); known || back {
				t.Fatal("they know each other already, or this test tests nothing")
			}
			first, second := b, c
			if swapped {
				first, second = c, b
			}
			w.net.Link(first.id, second.id)
			took := agree(t, 10*time.Second, b, c)
			if took > secondDelay+2*time.Second {
				t.Errorf("agreed after %s, want within two syncs", took)
			}
		})
	}
}

// A node that has lost its records knows nobody, and meets a member that is no admin: it gets all, its admin's LAN secret too.
func TestLostRecordsComeBackFromAnyMember(t *testing.T) {
	for _, dials := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 5*time.Millisecond)
			a := w.founder("a")
			a.own.LANSecret = [16]byte{1, 2, 3}
			a.start()
			seed, _ := a.invite(2)
			b, c := w.mustJoin("b", a, seed), w.mustJoin("c", a, seed)
			b.start()
			w.net.Link(a.id, b.id)
			agree(t, 10*time.Second, a, b)
			a.stop()
			lost := *c
			lost.dir, lost.store = t.TempDir(), nil
			if err := c.store.Close(); err != nil {
				t.Fatal(err)
			}
			c.store = nil
			p := &lost
			p.start()
			if dials {
				w.net.Link(p.id, b.id)
			} else {
				w.net.Link(b.id, p.id)
			}
			agree(t, 20*time.Second, b, p)
			if m, _ := p.View().Member(a.id); m.Record.LANSecret != a.own.LANSecret || len(p.View().Members) != 3 {
				t.Errorf("got %d members and %x, want all three and the secret", len(p.View().Members), m.Record.LANSecret)
			}
		})
	}
}

// A stranger may bring 64 records at a time and no more; the first ones, which others rest on.
func TestStrangerBringsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		crowd := w.crowd(200)
		a := w.founder("a").start()
		seed, _ := a.invite(1)
		w.mustJoin("b", a, seed)
		said := appendFrame(appendFrame(nil, frameHello, append([]byte{syncVersion}, bytes.Repeat([]byte{9}, 16)...)), frameCompare, bytes.Repeat([]byte{0xff}, 32))
		for _, signed := range crowd {
			key, _ := signed.Key()
			version, _ := signed.Version()
			said = appendEntries(said, entriesOf(key, version))
		}
		got, _ := a.talk(identity.NodeID{9}, appendFrame(said, frameEnd, nil))
		var wants []record.Key
		for in := bytes.NewReader(got); ; {
			f, err := readFrame(in, make([]byte, maxFrame))
			if err != nil {
				break
			}
			if f.kind == frameWant {
				wants = append(wants, parseKeys(f.payload)...)
			}
		}
		var first []record.Key
		for _, signed := range crowd[:maxOfStranger] {
			key, _ := signed.Key()
			first = append(first, key)
		}
		if !slices.Equal(wants, first) {
			t.Errorf("got %d wanted, want the first %d", len(wants), maxOfStranger)
		}
	})
}
