//go:build linux

package natlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Line is what the way between a site and the Internet does to packets, in each direction by itself. The zero Line does nothing.
//
// Kernels without netem have nothing that holds packets, so this process does: what the cable's end in the core gets from either
// side goes to a TAP device, and when its time has come it is sent on over the cable. There is one goroutine for each direction. On two
// cores that many others used, 11,000 packets a second went through (BenchmarkLine); a machine that is busy adds its own lateness.
type Line struct {
	Delay  time.Duration // one way: a round trip over the line takes twice as long
	Jitter time.Duration // what is added to the delay of a packet at most, each value as likely: packets overtake each other
	Loss   float64       // share of the packets that are lost, from 0 to 1
	Rate   int           // bit/s, with 14 bytes of Ethernet header for each packet; 0: no limit
	Queue  time.Duration // longest wait for the rate, else a packet is dropped; 0: the time of eight full packets, at least 100 ms
	Seed   uint64        // of what is drawn, for loss and jitter
}

// String returns the line as tables print it.
func (l Line) String() string {
	var words []string
	add := func(there bool, format string, args ...any) {
		if there {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(l.Delay > 0, "%v each way", l.Delay)
	add(l.Jitter > 0, "up to %v more", l.Jitter)
	add(l.Loss > 0, "%.3g %% loss", 100*l.Loss)
	add(l.Rate > 0, "%.4g kbit/s", float64(l.Rate)/1000)
	if len(words) == 0 {
		return "no line"
	}
	return strings.Join(words, ", ")
}

// Carried is what one direction of a line has seen since it was made. Bytes are those of whole frames.
type Carried struct {
	Packets, Bytes int64 // let through
	Lost           int64 // packets, by Loss
	Overflowed     int64 // packets that the queue had no room for
}

// Minus returns what was carried since an earlier state.
func (c Carried) Minus(before Carried) Carried {
	return Carried{c.Packets - before.Packets, c.Bytes - before.Bytes, c.Lost - before.Lost, c.Overflowed - before.Overflowed}
}

// Line gives the site of a host or router this line to the Internet, or changes the one that it has. What is on its way then
// arrives as it would have; without jitter nothing is overtaken. What neighbours ask to find each other's link addresses
// passes at once: the distance lies behind the provider's router. The line goes with the cable: a Move leaves it behind.
func (l *Lab) Line(a Attached, line Line) {
	c := a.top()
	if c.far != l.core {
		l.fatal(fmt.Errorf("line of %s: it does not lead to the Internet", c.near.name))
	}
	s := l.lines[c.number]
	if s == nil {
		if line == (Line{}) {
			return
		}
		var err error
		s, err = newStretch(c, line)
		l.must(err)
		l.lines[c.number] = s
		l.closeLater(s)
	}
	s.set(line)
}

// Carried returns what the line of the site has carried so far: up to the Internet, and down from there. Without a line it
// is nothing.
func (l *Lab) Carried(a Attached) (up, down Carried) {
	s := l.lines[a.top().number]
	if s == nil {
		return Carried{}, Carried{}
	}
	return s.up.carried(), s.down.carried()
}

// unline takes the line of a cable away.
func (l *Lab) unline(c *cable) {
	if s := l.lines[c.number]; s != nil && c.far == l.core {
		delete(l.lines, c.number)
		l.must(s.Close())
		l.must(l.core.nft(fmt.Sprintf("delete table netdev %s\n", lineTable(c.farIf))))
	}
}

// linePassed is the link address from which held frames are sent on: by it the rules know them. No one answers to link
// addresses of frames; ARP and neighbour discovery say in their text who asks.
const linePassed = "02:6c:69:6e:65:01"

func lineTable(farIf string) string { return "line-" + farIf }

// lineRules hand what passes the core's end of a cable to the two TAP devices, but for what comes from there.
func lineRules(farIf, up, down string) string {
	return fmt.Sprintf(`table netdev %[1]s {
	chain up {
		type filter hook ingress device %[2]q priority 10; policy accept;
		ether saddr %[5]s accept
		ether type arp accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
		fwd to %[3]q
	}
	chain down {
		type filter hook egress device %[2]q priority 10; policy accept;
		ether saddr %[5]s accept
		ether type arp accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
		fwd to %[4]q
	}
}
`, lineTable(farIf), farIf, up, down, linePassed)
}

// stretch is a line at work: both its directions.
type stretch struct{ up, down *pump }

func newStretch(c *cable, line Line) (*stretch, error) {
	s := &stretch{}
	var err error
	names := [2]string{fmt.Sprintf("u%d", c.number), fmt.Sprintf("d%d", c.number)}
	if s.up, err = newPump(c.far, names[0], c.near, c.nearIf, line, 1); err != nil {
		return nil, err
	}
	if s.down, err = newPump(c.far, names[1], c.far, c.farIf, line, 2); err != nil {
		return nil, errors.Join(err, s.up.Close())
	}
	if err = c.far.nft(lineRules(c.farIf, names[0], names[1])); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *stretch) set(line Line) {
	s.up.line.Store(&line)
	s.down.line.Store(&line)
}

// Close ends the goroutines; the devices go with them.
func (s *stretch) Close() error { return errors.Join(s.up.Close(), s.down.Close()) }

// pump is one direction of a line: it takes frames out of a TAP device, and sends them by a packet socket.
type pump struct {
	line  atomic.Pointer[Line]
	seen  atomic.Pointer[Carried]
	tap   int
	out   int // packet socket, bound to the interface that sends
	end   int // an eventfd that wakes the goroutine for its end
	ended chan struct{}

	closeOnce sync.Once
	closeErr  error
}

// newPump makes the device in one namespace, and sends on out of an interface of another.
func newPump(in *space, tap string, to *space, ifname string, line Line, direction uint64) (*pump, error) {
	p := &pump{tap: -1, out: -1, end: -1, ended: make(chan struct{})}
	p.line.Store(&line)
	p.seen.Store(&Carried{})
	err := in.do(func() (err error) {
		if p.tap, err = openTAP(tap); err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv6/conf/"+tap+"/disable_ipv6", []byte("1"), 0)
	})
	if err == nil {
		err = in.ip(fmt.Sprintf("link set %s mtu 9000 txqueuelen 20000 up", tap))
	}
	if err == nil {
		err = to.do(func() (err error) { p.out, err = openSender(ifname); return err })
	}
	if err == nil {
		p.end, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		p.release() // the eventfd is made last
		return nil, fmt.Errorf("make line %s: %w", tap, err)
	}
	go p.run(newWire(line.Seed, direction))
	return p, nil
}

// openTAP makes a TAP device that lives as long as the file. Its name is taken as it is.
func openTAP(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make TAP device: %w", err)
	}
	return fd, nil
}

// openSender opens a packet socket that hears nothing and sends whole frames out of the interface.
func openSender(ifname string) (int, error) {
	card, err := net.InterfaceByName(ifname)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: card.Index}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind packet socket to %s: %w", ifname, err)
	}
	return fd, nil
}

// run holds the wire until Close: it alone reads, waits and sends. It has a thread of its own, which is served before others:
// on a busy machine the line would else be longer than it says.
func (p *pump) run(w *wire) {
	defer close(p.ended)
	defer p.release()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20)
	passed, _ := net.ParseMAC(linePassed)
	buf := make([]byte, 1<<16)
	for {
		for frame := w.pop(time.Now()); frame != nil; frame = w.pop(time.Now()) {
			copy(frame[6:12], passed)
			// Errors are those of a cable that is gone, or a full queue behind it: the frame is lost, as on real ones.
			unix.Write(p.out, frame)
		}
		seen := w.carried
		p.seen.Store(&seen)
		if !p.wait(w.next()) {
			return
		}
		for range 64 { // then it looks at the time again
			n, err := unix.Read(p.tap, buf)
			if err == unix.EAGAIN || err == unix.EINTR {
				break
			}
			if err != nil {
				return // the device is gone with its namespace
			}
			if n >= 14 {
				w.push(time.Now(), *p.line.Load(), buf[:n])
			}
		}
	}
}

// wait returns when a frame is there or the time has come, and false at the end.
func (p *pump) wait(until time.Time) bool {
	var limit *unix.Timespec
	if !until.IsZero() {
		t := unix.NsecToTimespec(max(0, int64(time.Until(until))))
		limit = &t
	}
	fds := []unix.PollFd{{Fd: int32(p.tap), Events: unix.POLLIN}, {Fd: int32(p.end), Events: unix.POLLIN}}
	unix.Ppoll(fds, limit, nil) // a signal only has it look earlier
	return fds[1].Revents == 0
}

func (p *pump) carried() Carried { return *p.seen.Load() }

// Close ends the goroutine and the device. Once: a line that its cable has left is closed again with the lab, and by then the
// number of its eventfd may be that of somebody else's file, such as the end of another line.
func (p *pump) Close() error {
	p.closeOnce.Do(func() { p.closeErr = p.close() })
	return p.closeErr
}

func (p *pump) close() error {
	if _, err := unix.Write(p.end, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("end line: %w", err)
	}
	<-p.ended
	return unix.Close(p.end)
}

// release closes what is open.
func (p *pump) release() {
	for _, fd := range []int{p.tap, p.out} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
