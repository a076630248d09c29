package bind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// streamed returns an open bind over a script, and its streams' receive function as one that returns what the device
// would see of the next batch.
func streamed(t testing.TB) (*Bind, *script, func() []received) {
	s := new(script)
	b := New(Options{Inner: s, Logger: quiet})
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	bufs, sizes, eps := buffers()
	return b, s, func() (got []received) {
		n, err := fns[len(fns)-1](bufs, sizes, eps)
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		for i := range n {
			if sizes[i] > 0 {
				got = append(got, received{eps[i], append([]byte(nil), bufs[i][:sizes[i]]...)})
			}
		}
		return got
	}
}

// attach attaches one end of a pipe; it returns the other, whose writes the test does from goroutines.
func attach(t testing.TB, b *Bind, o StreamOptions) (netip.AddrPort, net.Conn, <-chan struct{}) {
	t.Helper()
	near, far := net.Pipe()
	virtual, done, err := b.Streams().Attach(near, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); <-done })
	return virtual, far, done
}

func framed(packets ...[]byte) (out []byte) {
	for _, p := range packets {
		out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
		out = append(out, p...)
	}
	return out
}

// unframed reads one frame.
func unframed(t testing.TB, c io.Reader) []byte {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func quicPacket(mark byte) []byte {
	p := bytes.Repeat([]byte{mark}, 40)
	copy(p, []byte{0x40, 0xff, 0xff, 0xff})
	return p
}

// Each protocol takes the way that it takes when it comes by UDP, with the stream's address as its source.
func TestStreamIn(t *testing.T) {
	b, s, receive := streamed(t)
	virtual, far, _ := attach(t, b, StreamOptions{})
	relayed, err := b.Channels().Open(virtual, 0x4001)
	if err != nil {
		t.Fatal(err)
	}
	out := Half{addr("192.0.2.9:9"), 0x4802}
	if _, err := b.Forwards().Set(Half{virtual, 0x4002}, out); err != nil {
		t.Fatal(err)
	}
	direct, other := b.NewEndpoint([32]byte{1}), b.NewEndpoint([32]byte{2})
	direct.SetPath(virtual)
	other.SetPath(relayed)
	stun := withAttribute(0x0020, 0, 1, 0, 1, 192, 0, 2, 1)
	all := framed(message(4), nil, stun, quicPacket(1), channelData(0x4001, message(4)), channelData(0x4002, message(1)),
		channelData(0x4001, stun), []byte("junk, of no protocol"), message(1))
	go func() {
		for _, part := range slices.Collect(slices.Chunk(all, 7)) { // frames do not come in one piece
			far.Write(part)
		}
	}()
	var eps []conn.Endpoint
	for len(eps) < 3 {
		for _, r := range receive() {
			eps = append(eps, r.ep)
		}
	}
	if want := []conn.Endpoint{direct, other, direct}; !slices.Equal(eps, want) {
		t.Errorf("wireguard: got endpoints %v, want %v", eps, want)
	}
	for _, want := range []netip.AddrPort{virtual, relayed} {
		if p, from := read(t, b.STUN()); !bytes.Equal(p, stun) || from != want {
			t.Errorf("stun: got %x from %v, want it from %v", p, from, want)
		}
	}
	if p, from := read(t, b.QUIC()); !bytes.Equal(p, quicPacket(1)) || from != virtual {
		t.Errorf("quic: got %x from %v, want it from %v", p, from, virtual)
	}
	until(t, "forwarding", func() bool {
		sent := s.taken()
		return len(sent) == 1 && sent[0].addr == out.Addr && bytes.Equal(sent[0].p, channelData(0x4802, message(1)))
	})
	if got := b.Counters()[DropUnknown]; got != 1 {
		t.Errorf("got %d of unknown protocol, want 1", got)
	}
}

// until polls a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestStreamOut(t *testing.T) {
	b, s, _ := streamed(t)
	virtual, far, _ := attach(t, b, StreamOptions{})
	relayed, err := b.Channels().Open(virtual, 0x4001)
	if err != nil {
		t.Fatal(err)
	}
	direct, other := b.NewEndpoint([32]byte{1}), b.NewEndpoint([32]byte{2})
	direct.SetPath(virtual)
	other.SetPath(relayed)
	to := net.UDPAddrFromAddrPort(virtual)
	steps := []struct {
		name string
		do   func()
		want []byte
	}{
		{"endpoint", func() { transmit(t, b, direct, message(4)) }, message(4)},
		{"endpoint through a relay", func() { transmit(t, b, other, message(4)) }, channelData(0x4001, message(4))},
		{"where the device roamed to", func() { transmit(t, b, &conn.StdNetEndpoint{AddrPort: virtual}, message(2)) }, message(2)},
		{"stun", func() { b.STUN().WriteTo([]byte("stun"), to) }, []byte("stun")},
		{"stun through a relay", func() { b.STUN().WriteTo([]byte("s"), net.UDPAddrFromAddrPort(relayed)) }, channelData(0x4001, []byte("s"))},
		{"quic", func() { b.QUIC().WriteTo([]byte("quic"), to) }, []byte("quic")},
	}
	for _, step := range steps {
		step.do()
		if got := unframed(t, far); !bytes.Equal(got, step.want) {
			t.Errorf("%s: got %x, want %x", step.name, got, step.want)
		}
	}
	if out := s.taken(); len(out) > 0 {
		t.Errorf("got %v sent by UDP, want nothing", destinations(out))
	}
	if got := direct.DstToString(); got != virtual.String() {
		t.Errorf("got path %v, want %v", got, virtual)
	}
}

// A relay joins what comes by UDP and by streams in any combination.
func TestForwardToStream(t *testing.T) {
	b, _, feed := scripted(t)
	first, farFirst, _ := attach(t, b, StreamOptions{})
	from := Half{addr("192.0.2.1:1"), 0x4001}
	counters, err := b.Forwards().Set(from, Half{first, 0x4005})
	if err != nil {
		t.Fatal(err)
	}
	feed(sent{from.Addr, channelData(0x4001, message(4))}, sent{from.Addr, channelData(0x4001, message(1))})
	for _, want := range [][]byte{message(4), message(1)} {
		if got := unframed(t, farFirst); !bytes.Equal(got, channelData(0x4005, want)) {
			t.Errorf("got %x, want %x behind 4005", got, want)
		}
	}
	until(t, "counting", func() bool { return counters.Load().Packets == 2 })
	for _, bad := range []netip.AddrPort{b.NewEndpoint([32]byte{1}).Handle(), virtualAddr(virtualChannel, 1)} {
		if _, err := b.Forwards().Set(Half{bad, 0x4001}, Half{first, 0x4001}); err == nil {
			t.Errorf("forward from %v: got no error", bad)
		}
	}
}

// Senders do not wait for a far side that does not read; the oldest packets make room.
func TestStreamQueueDropsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := streamed(t)
		virtual, far, _ := attach(t, b, StreamOptions{})
		const packets = 1000
		p := make([]byte, 1000)
		for i := range packets {
			binary.BigEndian.PutUint32(p, uint32(i))
			b.QUIC().WriteTo(p, net.UDPAddrFromAddrPort(virtual))
			if i == 0 {
				synctest.Wait() // the writer is now stuck with the first packet
			}
		}
		dropped := int(b.Counters()[DropStreamQueue])
		perChunk := chunkSize / (len(p) + streamHeaderSize)
		if want := packets - 1 - dropped; want > streamQueue*perChunk || want < (streamQueue-1)*perChunk {
			t.Errorf("got %d packets dropped, %d kept, want at most %d kept", dropped, want, streamQueue*perChunk)
		}
		for i := range packets - dropped {
			want := 0
			if i > 0 {
				want = i + dropped
			}
			if got := binary.BigEndian.Uint32(unframed(t, far)); got != uint32(want) {
				t.Fatalf("packet %d: got %d, want %d", i, got, want)
			}
		}
		b.QUIC().WriteTo(make([]byte, maxStreamPacket+1), net.UDPAddrFromAddrPort(virtual))
		if got := b.Counters()[DropTooLarge]; got != 1 {
			t.Errorf("got %d too large, want 1", got)
		}
	})
}

// A stream that stalls sends afterwards what is still worth it.
func TestStreamDropsWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := streamed(t)
		virtual, far, _ := attach(t, b, StreamOptions{})
		p := make([]byte, 1000)
		send := func(number, count uint32) {
			for range count {
				binary.BigEndian.PutUint32(p, number)
				b.QUIC().WriteTo(p, net.UDPAddrFromAddrPort(virtual))
			}
		}
		send(1, 1)
		synctest.Wait() // the writer is now stuck with the first packet
		send(2, 40)
		time.Sleep(150 * time.Millisecond)
		send(3, 40)
		time.Sleep(100 * time.Millisecond)
		got := map[uint32]int{}
		for range 1 + 40 {
			got[binary.BigEndian.Uint32(unframed(t, far))]++
		}
		if late := b.Counters()[DropStreamQueue]; got[1] != 1 || got[3] != 40 || late != 40 {
			t.Errorf("got %v and %d dropped, want the first and the third", got, late)
		}
	})
}

func TestStreamEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(b *Bind, virtual netip.AddrPort, far net.Conn)
	}{
		{"detached", func(b *Bind, virtual netip.AddrPort, _ net.Conn) {
			b.Streams().Detach(virtual)
			b.Streams().Detach(virtual)
		}},
		{"closed by the far side", func(_ *Bind, _ netip.AddrPort, far net.Conn) { far.Close() }},
		{"broken", func(_ *Bind, _ netip.AddrPort, far net.Conn) { far.Write([]byte{0xff, 0xff}) }},
		{"detached while nobody receives", func(b *Bind, virtual netip.AddrPort, far net.Conn) {
			for range streamInbox + 1 { // the reader waits with the last one
				far.Write(framed(message(4)))
			}
			b.Streams().Detach(virtual)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s, _ := streamed(t)
				virtual, far, done := attach(t, b, StreamOptions{})
				relayed, _ := b.Channels().Open(virtual, 0x4001)
				e := b.NewEndpoint([32]byte{1})
				e.SetPath(virtual)
				test.end(b, virtual, far)
				<-done
				if _, err := far.Read(make([]byte, 1)); err == nil {
					t.Error("far side: got no error")
				}
				transmit(t, b, e, message(4), message(4))
				e.SetPath(virtual)
				transmit(t, b, e, message(4))
				e.SetPath(relayed)
				transmit(t, b, e, message(4))
				b.QUIC().WriteTo([]byte("x"), net.UDPAddrFromAddrPort(virtual))
				if got := b.Counters()[DropStreamGone]; got != 5 {
					t.Errorf("got %d dropped, want 5", got)
				}
				if out := s.taken(); len(out) > 0 {
					t.Errorf("got %v sent by UDP, want nothing", destinations(out))
				}
				if again, _, _ := attach(t, b, StreamOptions{}); again == virtual {
					t.Error("got the same address again")
				}
			})
		})
	}
}

func TestStreamOfStranger(t *testing.T) {
	b, _, receive := streamed(t)
	virtual, far, _ := attach(t, b, StreamOptions{QUICOnly: true})
	member, farMember, _ := attach(t, b, StreamOptions{})
	far.Write(framed(message(1), withAttribute(0x0020, 0, 1, 0, 1, 192, 0, 2, 1), channelData(0x4001, message(1)), quicPacket(7)))
	until(t, "the stranger's packets are taken in", func() bool { return len(b.streams.inbox) == 1 })
	farMember.Write(framed(message(2))) // else it might overtake them
	var got []received
	for len(got) == 0 {
		got = receive()
	}
	if len(got) != 1 || !bytes.Equal(got[0].p, message(2)) || got[0].ep.DstToString() != member.String() {
		t.Errorf("got %v, want the member's packet alone", got)
	}
	if _, from := read(t, b.QUIC()); from != virtual {
		t.Errorf("quic: got it from %v, want %v", from, virtual)
	}
	if got := b.Counters()[DropStreamRefused]; got != 3 {
		t.Errorf("got %d refused, want 3", got)
	}
}

func TestTooManyStreams(t *testing.T) {
	b, _, _ := streamed(t)
	for range maxStreams {
		attach(t, b, StreamOptions{})
	}
	near, far := net.Pipe()
	defer far.Close()
	if _, _, err := b.Streams().Attach(near, StreamOptions{}); !errors.Is(err, ErrTooManyStreams) {
		t.Errorf("got %v, want ErrTooManyStreams", err)
	}
}

// Two devices with no UDP between them, and the sockets of one opened anew meanwhile.
func TestDevicesOverStream(t *testing.T) {
	a, b := startNode(t, conn.NewStdNetBind(), "10.0.0.1"), startNode(t, conn.NewStdNetBind(), "10.0.0.2")
	ea, eb := a.peer(b, true), b.peer(a, false)
	near, far := tcpPair(t)
	atA, doneA, err := a.bind.Streams().Attach(near, StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	atB, doneB, err := b.bind.Streams().Attach(far, StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ea.SetPath(atA)
	eb.SetPath(atB)
	for i := range uint32(500) {
		if i == 250 {
			a.set("listen_port=0\n")
		}
		a.ping(b, i)
		if got, ok := b.number(10 * time.Second); !ok || got != i {
			t.Fatalf("there: got %d, %v, want %d", got, ok, i)
		}
		b.ping(a, i)
		if got, ok := a.number(10 * time.Second); !ok || got != i {
			t.Fatalf("back: got %d, %v, want %d", got, ok, i)
		}
	}
	select {
	case stray := <-a.bind.Strays():
		t.Errorf("got stray %v, want none", stray)
	default:
	}
	a.bind.Streams().Detach(atA)
	<-doneA
	<-doneB
}

func tcpPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// loop is a connection whose far end sends the same bytes for ever and takes everything.
type loop struct {
	net.Conn
	frames []byte
	closed chan struct{}
}

func (l *loop) Read(p []byte) (int, error) {
	select {
	case <-l.closed:
		return 0, net.ErrClosed
	default:
		return copy(p, l.frames), nil
	}
}

func (l *loop) Write(p []byte) (int, error) { return len(p), nil }

func (l *loop) Close() error { close(l.closed); return nil }

func TestStreamNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and makes sync.Pool forget")
	}
	b := New(Options{Inner: new(mute), Logger: quiet})
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data := make([]byte, 1452)
	data[0] = 4
	l := &loop{frames: framed(data), closed: make(chan struct{})}
	virtual, done, err := b.Streams().Attach(l, StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { b.Streams().Detach(virtual); <-done }()
	e := b.NewEndpoint([32]byte{1})
	e.SetPath(virtual)
	bufs, sizes, eps := buffers()
	out := slices.Repeat([][]byte{data}, conn.IdealBatchSize)
	step := func() {
		if n, err := fns[len(fns)-1](bufs, sizes, eps); err != nil || n == 0 || eps[0] != conn.Endpoint(e) {
			t.Fatalf("got %d packets, %v", n, err)
		}
		b.Send(out, e)
	}
	for range 200 {
		step() // the pool's chunks
	}
	if got := testing.AllocsPerRun(1000, step); got >= 1 { // the collector may empty the pool in between
		t.Errorf("got %v allocations per batch in and out, want none", got)
	}
}

// slowFrames is the obvious way to read frames.
func slowFrames(in []byte) (out [][]byte, ok bool) {
	for len(in) >= 2 {
		n := int(in[0])<<8 | int(in[1])
		if n > maxStreamPacket {
			return out, false
		}
		if len(in) < 2+n {
			break
		}
		if n > 0 {
			out = append(out, in[2:2+n])
		}
		in = in[2+n:]
	}
	return out, true
}

// pieces is a connection whose Read returns bytes in pieces of random sizes.
type pieces struct {
	net.Conn
	rest, sizes []byte
	i           int
}

func (c *pieces) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := len(c.rest)
	if len(c.sizes) > 0 {
		n = 1 + int(c.sizes[c.i%len(c.sizes)])*97
		c.i++
	}
	n = copy(p, c.rest[:min(n, len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}

func (c *pieces) Close() error { return nil }

func FuzzStreamFrames(f *testing.F) {
	f.Add(framed(message(1), nil, quicPacket(1)), []byte{0})
	f.Add(framed(make([]byte, maxStreamPacket), make([]byte, maxStreamPacket)), []byte{255, 3})
	f.Add([]byte{0xff, 0xff, 1}, []byte{})
	f.Add([]byte{0, 5, 1, 2}, []byte{1})
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		want, ok := slowFrames(in)
		b := New(Options{Inner: new(script), Logger: quiet})
		virtual, done, err := b.Streams().Attach(&pieces{rest: in, sizes: sizes}, StreamOptions{})
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() {
			<-done
			b.streams.inbox <- &chunk{from: &stream{endpoint: &conn.StdNetEndpoint{}}, end: 3, buf: [chunkSize]byte{0, 1, 0}} // the last
		}()
		r := &streamReceiver{streams: b.streams, closed: closed}
		bufs, lengths, eps := make([][]byte, 3), make([]int, 3), make([]conn.Endpoint, 3)
		for i := range bufs {
			bufs[i] = make([]byte, maxStreamPacket)
		}
		for got := 0; ; {
			n, err := r.receive(bufs, lengths, eps)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if eps[i].(*conn.StdNetEndpoint).AddrPort != virtual {
					if got != len(want) {
						t.Fatalf("got %d frames, want %d", got, len(want))
					}
					if broken := b.Counters()[DropStreamBroken] == 1; broken == ok {
						t.Fatalf("got broken %v, want %v", broken, !ok)
					}
					return
				}
				if got >= len(want) || !bytes.Equal(bufs[i][:lengths[i]], want[got]) {
					t.Fatalf("frame %d: got %d bytes, want another", got, lengths[i])
				}
				got++
			}
		}
	})
}
