package session

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

var zeroOptions sessiontest.Options

func meshOf(w *world) identity.MeshID {
	return identity.MeshIDOf(w.mesh.Root.Key.Public().(ed25519.PublicKey))
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, sessiontest.Options{Latency: 20 * time.Millisecond})
		defer w.stop()
		member := w.nodes[0]
		exported := make(chan []byte, 1)
		reply := strings.Repeat("records ", 100_000)
		member.start(nil, func(o *Options) {
			o.Joins, o.Inbound = true, onJoin{o.Inbound, func(c JoinConn) {
				key, err := c.Export("label")
				if err != nil {
					t.Error(err)
				}
				exported <- key
				request := make([]byte, 7)
				if _, err := io.ReadFull(c, request); err != nil || string(request) != "request" {
					t.Errorf("got %q, %v", request, err)
				}
				_, _ = io.WriteString(c, reply)
				c.Close()
			}}
		})
		conn := w.net.ListenNAT(netip.MustParseAddrPort("198.51.100.1:1000"))
		defer conn.Close()
		for _, pin := range [][8]byte{[8]byte(member.ID[:8]), {}} {
			c, root, chain, err := DialJoin(context.Background(), conn, member.addr, meshOf(w), pin)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "root", root.Equal(w.mesh.Root.Cert), true)
			expect(t, "chain", len(chain), 2)
			_, _ = io.WriteString(c, "request")
			key, err := c.Export("label")
			if want := <-exported; err != nil || len(key) != 32 || !bytes.Equal(key, want) {
				t.Errorf("exported keys: got %x and %x, %v", key, want, err)
			}
			other, _ := c.Export("another label")
			expect(t, "keys of other labels are equal", bytes.Equal(key, other), false)
			got, err := io.ReadAll(c)
			if err != nil || string(got) != reply {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(reply))
			}
			start := time.Now()
			c.Close()
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("close took %v", took)
			}
		}
		for name, err := range map[string]error{
			"another node": dialJoin(conn, member.addr, meshOf(w), [8]byte{1}),
			"another mesh": dialJoin(conn, member.addr, identity.MeshID{1}, [8]byte{}),
		} {
			// The alert that comes back names no reason; ours does.
			if err == nil || !errors.Is(err, ErrWrongMember) && !strings.Contains(err.Error(), ErrWrongMember.Error()) {
				t.Errorf("%s: got %v, want ErrWrongMember", name, err)
			}
		}
	})
}

func dialJoin(conn *sessiontest.PacketConn, addr netip.AddrPort, mesh identity.MeshID, pin [8]byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c, _, _, err := DialJoin(ctx, conn, addr, mesh, pin)
	if err == nil {
		c.Close()
	}
	return err
}

func TestJoinersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: time.Millisecond})
		defer w.stop()
		member, plain := w.nodes[0], w.nodes[1]
		var open atomic.Int32
		member.start(nil, func(o *Options) {
			o.Joins, o.Inbound = true, onJoin{o.Inbound, func(c JoinConn) {
				open.Add(1)
				_, _ = io.Copy(io.Discard, c) // a joiner that says nothing
				open.Add(-1)
			}}
		})
		plain.start(nil)
		var conns []*sessiontest.PacketConn
		for i := range maxJoins + 4 {
			conn := w.net.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1000))
			conns = append(conns, conn)
			go func() {
				c, _, _, err := DialJoin(context.Background(), conn, member.addr, meshOf(w), [8]byte{})
				if err == nil {
					_, _ = io.Copy(io.Discard, c)
					c.Close()
				}
			}()
		}
		time.Sleep(joinLife - time.Second)
		expect(t, "joins at once", open.Load(), maxJoins)
		time.Sleep(2 * time.Second)
		expect(t, "joins after their time", open.Load(), 0)
		conn := w.net.Listen(netip.MustParseAddrPort("198.51.100.200:1000"))
		defer conn.Close()
		if err := dialJoin(conn, plain.addr, meshOf(w), [8]byte{}); err == nil {
			t.Error("join where it is not offered: got nil")
		}
		if err := dialJoin(conn, netip.MustParseAddrPort("203.0.113.1:9"), meshOf(w), [8]byte{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody there: got %v", err)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestCheckMember(t *testing.T) {
	w := newWorld(t, 1, zeroOptions)
	root := w.mesh.Root
	now := time.Now()
	seed, inviteCert, err := identity.NewInvite(root, identity.InviteTerms{Uses: 1, Expires: now.Add(time.Hour)}, now)
	if err != nil {
		t.Fatal(err)
	}
	invite := identity.Authority{Cert: inviteCert, Key: ed25519.NewKeyFromSeed(seed[:])}
	key := identity.GenerateKey()
	leaf, err := identity.NewNode(invite, key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: now})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := sessiontest.NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.NewNode()
	if err != nil {
		t.Fatal(err)
	}
	mesh := meshOf(w)
	id := identity.NodeIDOfCert(leaf)
	chain := func(certs ...*x509.Certificate) []*x509.Certificate { return certs }
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		pin   [8]byte
		now   time.Time
		ok    bool
	}{
		{"invited", chain(leaf, inviteCert, root.Cert), [8]byte(id[:8]), now, true},
		{"founder", w.nodes[0].Chain, [8]byte{}, now, true},
		{"no chain", nil, [8]byte{}, now, false},
		{"root alone", chain(root.Cert), [8]byte{}, now, false},
		{"link missing", chain(leaf, root.Cert), [8]byte{}, now, false},
		{"invite as a leaf", chain(inviteCert, root.Cert), [8]byte{}, now, false},
		{"wrong pin", chain(leaf, inviteCert, root.Cert), [8]byte{1}, now, false},
		{"expired", chain(leaf, inviteCert, root.Cert), [8]byte{}, now.Add(11 * 365 * 24 * time.Hour), false},
		{"another mesh", foreign.Chain, [8]byte{}, now, false},
		{"another mesh under our root", chain(foreign.Chain[0], root.Cert), [8]byte{}, now, false},
	} {
		err := checkMember(c.chain, mesh, c.pin, c.now)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrWrongMember) {
			t.Errorf("%s: got %v, want ok %v", c.name, err, c.ok)
		}
	}
}

// TestResetKeyIsStable: a new process must be able to end the connections of the one before.
func TestResetKeyIsStable(t *testing.T) {
	key := identity.GenerateKey()
	a, err := resetKey(tls.Certificate{PrivateKey: key})
	b, _ := resetKey(tls.Certificate{PrivateKey: key})
	if err != nil || *a != *b || *a == [32]byte{} {
		t.Errorf("got %x and %x, %v", a, b, err)
	}
	if _, err := resetKey(tls.Certificate{}); err == nil {
		t.Error("no key: got nil")
	}
}

// Hosts that dial as joiners and say nothing, again and again, keep nobody out: another host gets in at its first try.
func TestJoinPlaces(t *testing.T) {
	for _, hosts := range []int{1, 3, 9} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, sessiontest.Options{Latency: 10 * time.Millisecond})
			defer w.stop()
			member := w.nodes[0]
			member.start(nil, func(o *Options) {
				o.Joins, o.Inbound = true, onJoin{o.Inbound, func(c JoinConn) {
					var hello [1]byte
					_ = c.SetDeadline(time.Now().Add(helloTimeout))
					if _, err := io.ReadFull(c, hello[:]); err == nil {
						_, _ = c.Write(hello[:])
					}
					c.Close()
				}}
			})
			ctx, cancel := context.WithCancel(t.Context())
			var idle sync.WaitGroup
			for i := range max(20, 4*hosts) {
				addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i % hosts)}), uint16(1000+i))
				idle.Go(func() {
					for ctx.Err() == nil {
						conn := w.net.ListenNAT(addr)
						try, stop := context.WithTimeout(ctx, time.Second)
						c, _, _, err := DialJoin(try, conn, member.addr, meshOf(w), [8]byte{})
						stop()
						if err == nil {
							end := context.AfterFunc(ctx, func() { c.Close() })
							_, _ = io.Copy(io.Discard, c)
							end()
							c.Close()
						}
						conn.Close()
						select {
						case <-time.After(100 * time.Millisecond):
						case <-ctx.Done():
						}
					}
				})
			}
			time.Sleep(2 * time.Second)
			joins := member.reception.gate.joins
			if taken, want := joins.Taken(nil), min(maxJoins, maxJoinsSource*hosts); taken != want {
				t.Errorf("%d hosts: got %d places taken, want %d", hosts, taken, want)
			}
			for i := range 5 {
				conn := w.net.ListenNAT(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1000))
				c, _, _, err := DialJoin(t.Context(), conn, member.addr, meshOf(w), [8]byte{})
				if err != nil {
					t.Fatalf("%d hosts: honest joiner %d: %v", hosts, i, err)
				}
				_, _ = c.Write([]byte("h"))
				if answer, err := io.ReadAll(c); string(answer) != "h" {
					t.Errorf("%d hosts: honest joiner %d: got %q, %v, want an answer at the first try", hosts, i, answer, err)
				}
				c.Close()
				conn.Close()
				time.Sleep(200 * time.Millisecond)
			}
			cancel()
			idle.Wait()
		})
	}
}
