package nat

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/path"
	"warren/nat/stunwire"
)

/* Packets that have ended programs
 *
 * pion/ice v3 reads STUN by a library whose line is at its end, and which panics at some messages (GHSA-34rh-wp3j-6cxc). What
 * stands before it (stunwire, the mux) is held here: such messages of whoever may send them, to real agents.
 */

// attribute is one of a message, as it stands on the wire, of whatever length it says.
func attribute(kind uint16, value []byte) []byte {
	raw := binary.BigEndian.AppendUint16(nil, kind)
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(value)))
	raw = append(raw, value...)
	for len(raw)%4 != 0 {
		raw = append(raw, 0)
	}
	return raw
}

// datagram is a STUN message with these attributes; its length is right.
func datagram(class uint16, id stunwire.ID, attributes ...[]byte) []byte {
	raw := binary.BigEndian.AppendUint16(nil, class)
	raw = append(raw, 0, 0, 0x21, 0x12, 0xa4, 0x42)
	raw = append(raw, id[:]...)
	raw = append(raw, bytes.Join(attributes, nil)...)
	binary.BigEndian.PutUint16(raw[2:], uint16(len(raw)-20))
	return raw
}

// signed adds MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489, sections 14.5 and 14.7), to whatever stands before.
func signed(raw []byte, pwd string) []byte {
	raw = bytes.Clone(raw)
	binary.BigEndian.PutUint16(raw[2:], uint16(len(raw)-20+24))
	mac := hmac.New(sha1.New, []byte(pwd))
	mac.Write(raw)
	raw = append(raw, attribute(0x0008, mac.Sum(nil))...)
	binary.BigEndian.PutUint16(raw[2:], uint16(len(raw)-20+8))
	sum := crc32.ChecksumIEEE(raw) ^ 0x5354554e
	return append(raw, attribute(0x8028, binary.BigEndian.AppendUint32(nil, sum))...)
}

// deadly are the attributes of which messages are made: each is tried alone, first and last, and all two together.
func deadly() map[string][]byte {
	all := make(map[string][]byte)
	address := func(n int, family byte) []byte {
		value := make([]byte, n)
		if n > 1 {
			value[1] = family
		}
		return value
	}
	for name, kind := range map[string]uint16{
		"XOR-MAPPED": 0x0020, "XOR-PEER": 0x0012, "XOR-RELAYED": 0x0016, "MAPPED": 0x0001, "ALTERNATE": 0x8023, "ORIGIN": 0x802b,
		"OTHER": 0x802c, "old XOR-MAPPED": 0x8020, "CHANGED": 0x0005,
	} {
		for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 19, 20, 21, 64} {
			for _, family := range []byte{0, 1, 2, 3, 255} {
				all[fmt.Sprintf("%s of %d bytes, family %d", name, n, family)] = attribute(kind, address(n, family))
			}
		}
	}
	for name, kind := range map[string]uint16{
		"PRIORITY": 0x0024, "USE-CANDIDATE": 0x0025, "ICE-CONTROLLED": 0x8029, "ICE-CONTROLLING": 0x802a, "ERROR-CODE": 0x0009,
		"UNKNOWN-ATTRIBUTES": 0x000a, "REALM": 0x0014, "NONCE": 0x0015, "SOFTWARE": 0x8022, "DATA": 0x0013, "CHANNEL": 0x000c,
		"LIFETIME": 0x000d, "EVEN-PORT": 0x0018, "TRANSPORT": 0x0019, "TOKEN": 0x0022, "PADDING": 0x0026, "RESPONSE-PORT": 0x0027,
		"CHANGE-REQUEST": 0x0003, "INTEGRITY-SHA256": 0x001c, "NETWORK-COST": 0xc057, "unknown, required": 0x7ffe, "unknown": 0xfffe,
		"INTEGRITY": 0x0008, "FINGERPRINT": 0x8028, "USERNAME": 0x0006, "zero": 0x0000,
	} {
		for _, n := range []int{0, 1, 3, 4, 5, 7, 8, 9, 20, 32, 81, 300} {
			all[fmt.Sprintf("%s of %d bytes", name, n)] = attribute(kind, bytes.Repeat([]byte{0xff}, n))
		}
	}
	long := attribute(0x8022, make([]byte, 8))
	binary.BigEndian.PutUint16(long[2:], 0xffff)
	all["longer than the message"] = long
	all["cut in its header"] = []byte{0x80, 0x22, 0}
	all["a message in a message"] = attribute(0x0013, datagram(0x0101, stunwire.ID{1}, attribute(0x0020, nil)))
	all["a hundred of them"] = bytes.Repeat(attribute(0x8022, nil), 100)
	return all
}

// besieged is one attempt with a real agent, under attack.
type besieged struct {
	x      *mux
	lane   *tap
	a      *attempt
	done   chan struct{}
	cancel context.CancelFunc
	probe  stunwire.ID // of a question that an anchor has not answered

	mu       sync.Mutex
	reported []path.Input
	there    netip.AddrPort
}

func besiege(controlling bool) *besieged {
	b := &besieged{done: make(chan struct{}), there: netip.MustParseAddrPort("192.0.2.7:1234")}
	b.x, b.lane, _ = newTestMux()
	b.x.trust(simID(2), []path.Credentials{ownCreds})
	start := path.StartICE{Attempt: 1, Controlling: controlling, Local: ownCreds, Remote: theirCreds, Candidates: []path.Candidate{path.NewCandidate(path.Host, b.there, 0)}}
	b.a = &attempt{
		start: start,
		mux:   newAgentMux(b.x, simID(2), start, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9277")}, nil),
		more:  make(chan []path.Candidate, path.MaxCandidates), stop: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() {
		defer close(b.done)
		b.a.run(ctx, b.report, slog.New(slog.DiscardHandler))
	}()
	synctest.Wait()
	b.probe = b.x.probe(netip.MustParseAddrPort("203.0.113.3:9277"))
	time.Sleep(checkInterval)
	return b
}

func (b *besieged) report(in path.Input) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reported = append(b.reported, in)
}

// reports returns what the attempt has said.
func (b *besieged) reports() []path.Input {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reported
}

// won is what an attempt reports that ends well.
func (b *besieged) won() []path.Input {
	return []path.Input{path.PairAnswered{Attempt: 1, Addr: b.there}, path.Nominated{Attempt: 1, Addr: b.there}}
}

// checks takes the checks that the agent has sent.
func (b *besieged) checks() (ids []stunwire.ID) {
	for _, sent := range b.lane.take() {
		if p, ok := stunwire.Inspect(sent.raw); ok && p.Class == stunwire.Request && sent.from == b.there {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// attack sends a message with these attributes as everybody who can send one: a stranger, an anchor that was asked, and the peer,
// as a check and as an answer to one.
func (b *besieged) attack(check stunwire.ID, attributes ...[]byte) {
	username := attribute(0x0006, []byte(ownCreds.Ufrag+":"+theirCreds.Ufrag))
	stranger := netip.MustParseAddrPort("198.51.100.66:666")
	anchor := netip.MustParseAddrPort("203.0.113.3:9277")
	mapped := attribute(0x0020, []byte{0, 1, 1, 1, 1, 1, 1, 1})
	b.x.dispatch(datagram(0x0001, stunwire.NewID(), attributes...), stranger)
	b.x.dispatch(datagram(0x0101, check, attributes...), stranger)
	b.x.dispatch(datagram(0x0101, b.probe, attributes...), anchor)
	b.x.dispatch(datagram(0x0101, b.probe, append([][]byte{mapped}, attributes...)...), anchor)
	for _, order := range [][][]byte{append([][]byte{username}, attributes...), append(attributes[:len(attributes):len(attributes)], username)} {
		b.x.dispatch(signed(datagram(0x0001, stunwire.NewID(), order...), ownCreds.Pwd), b.there)
	}
	for _, order := range [][][]byte{attributes, append([][]byte{mapped}, attributes...)} {
		b.x.dispatch(signed(datagram(0x0101, check, order...), theirCreds.Pwd), b.there)
	}
	for _, class := range []uint16{0x0011, 0x0111, 0x0003, 0x0103, 0x0113, 0x0004, 0x0008, 0x3fff} {
		b.x.dispatch(signed(datagram(class, check, append([][]byte{username}, attributes...)...), ownCreds.Pwd), b.there)
	}
}

// win has the attempt end as it should, with the honest peer's messages.
func (b *besieged) win(controlling bool) {
	for range 40 {
		if !controlling {
			raw := signed(datagram(0x0001, stunwire.NewID(),
				attribute(0x0006, []byte(ownCreds.Ufrag+":"+theirCreds.Ufrag)), attribute(0x0024, []byte{1, 2, 3, 4}),
				attribute(0x802a, make([]byte, 8)), attribute(0x0025, nil)), ownCreds.Pwd)
			b.x.dispatch(raw, b.there)
		}
		synctest.Wait()
		for _, id := range b.checks() {
			answer, _ := stunwire.Answer(id, netip.MustParseAddrPort("198.51.100.1:1"), theirCreds.Pwd)
			b.x.dispatch(answer, b.there)
		}
		time.Sleep(checkInterval)
		if len(b.reports()) > 1 {
			return
		}
	}
}

func (b *besieged) end() {
	close(b.a.stop)
	<-b.done
	b.cancel()
	synctest.Wait()
}

// No message ends the process, keeps a goroutine, or keeps the attempt from finding its path.
func TestPacketsOfDeath(t *testing.T) {
	all := deadly()
	for _, controlling := range []bool{true, false} {
		t.Run(fmt.Sprintf("controlling %v", controlling), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := besiege(controlling)
				var last []byte
				n := 0
				for _, a := range all {
					n++
					b.attack(b.answerable(), a)
					if last != nil {
						b.attack(b.answerable(), a, last)
					}
					last = a
					if n%50 == 0 { // the agent reads, and goes on
						time.Sleep(checkInterval)
					}
				}
				b.win(controlling)
				if want := b.won(); !slices.Equal(b.reports(), want) {
					t.Errorf("got %#v after %d messages, want %#v", b.reports(), n, want)
				}
				b.end() // a goroutine that is left fails the bubble; the runtime's own count is not exact while others end
			})
		})
	}
}

// answerable is the transaction of a check that is out.
func (b *besieged) answerable() stunwire.ID {
	b.x.asks.mu.Lock()
	defer b.x.asks.mu.Unlock()
	for id, w := range b.x.asks.waiting {
		if w.agent != nil {
			return id
		}
	}
	return stunwire.ID{}
}

// The same for what is no message at all, lengths that lie, and chance.
func TestDatagramsOfDeath(t *testing.T) {
	for _, controlling := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := besiege(controlling)
			good := signed(datagram(0x0001, stunwire.NewID(), attribute(0x0006, []byte(ownCreds.Ufrag+":"+theirCreds.Ufrag))), ownCreds.Pwd)
			for n := range good {
				b.x.dispatch(good[:n], b.there)
				flipped := bytes.Clone(good)
				flipped[n] ^= 0x80
				b.x.dispatch(flipped, b.there)
			}
			for _, length := range []uint16{0, 1, 3, 4, 0x7fff, 0xfffc, 0xffff} {
				lies := bytes.Clone(good)
				binary.BigEndian.PutUint16(lies[2:], length)
				b.x.dispatch(lies, b.there)
			}
			b.x.dispatch(make([]byte, 65507), b.there)
			b.x.dispatch(append(bytes.Clone(good), make([]byte, 2000)...), b.there)
			random := rand.New(rand.NewPCG(1, 2))
			for range 4_000 {
				var attributes [][]byte
				for range random.IntN(4) {
					value := make([]byte, random.IntN(24))
					for i := range value {
						value[i] = byte(random.IntN(256))
					}
					kinds := []uint16{0x0020, 0x0012, 0x0016, 0x0001, 0x0024, 0x0025, 0x8029, 0x802a, 0x0009, 0x0006, uint16(random.IntN(1 << 16))}
					attributes = append(attributes, attribute(kinds[random.IntN(len(kinds))], value))
				}
				b.attack(b.answerable(), attributes...)
			}
			b.win(controlling)
			if want := b.won(); !slices.Equal(b.reports(), want) {
				t.Errorf("controlling %v: got %#v, want %#v", controlling, b.reports(), want)
			}
			b.end()
		})
	}
}

// A peer that claims the same role again and again starts no quarrel: roles follow from the IDs.
func TestRoleConflicts(t *testing.T) {
	for _, controlling := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := besiege(controlling)
			role := uint16(0x8029)
			if controlling {
				role = 0x802a
			}
			sent := 0
			for i := range 1000 {
				tie := binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15)
				b.x.dispatch(signed(datagram(0x0001, stunwire.NewID(),
					attribute(0x0006, []byte(ownCreds.Ufrag+":"+theirCreds.Ufrag)), attribute(0x0024, []byte{1, 2, 3, 4}), attribute(role, tie)), ownCreds.Pwd), b.there)
				time.Sleep(2 * time.Millisecond)
				sent += len(b.lane.take())
			}
			if sent > 60 {
				t.Errorf("controlling %v: got %d packets for 1,000 checks in 2 s, want no more than its own pace", controlling, sent)
			}
			b.win(controlling)
			if want := b.won(); !slices.Equal(b.reports(), want) {
				t.Errorf("controlling %v: got %#v, want %#v", controlling, b.reports(), want)
			}
			b.end()
		})
	}
}
