// Package natprobe finds out what the NATs and firewalls before this host do with UDP, after RFC 5780: it asks members that
// answer STUN from sockets of its own, and has members send to these from sockets that they were never written to.
//
// What it sees is judged by natkind; how members are asked to help, and which ones, is left to nat/standing. It does not touch the
// shared socket: a fresh one has written to nobody yet, which is what a test of filtering needs.
//
// Measure and Help may be called concurrently; each ends what it has started before it returns.
package natprobe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
	"warren/nat/natkind"
	"warren/nat/stunwire"
)

// Times of a measurement, which has 3 s in all: a person waits for it.
const (
	// answerTime is how long servers have for their answers; within it each is asked five times.
	answerTime = 1500 * time.Millisecond
	// settleTime is how long further answers are waited for when there is one.
	settleTime = 250 * time.Millisecond
	// helpTime is how long the packets of helpers have, which are sent within helpTimes of an ask, after the round trip.
	helpTime   = 900 * time.Millisecond
	secondTime = 500 * time.Millisecond // for the answer of a helper's second port, and for what a router sends round in a circle
	// guardTime is how long a helper's socket is open: until the last packet of a measurement that asked for it.
	guardTime  = 3 * time.Second
	maxAnswers = 16 // of a helper's socket
	maxServers = 8
)

// askTimes are when a server is asked, unless it has answered, and helpTimes when a helper sends: a loss is no proof.
var (
	askTimes  = []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond, time.Second}
	helpTimes = []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}
)

// Sockets opens fresh UDP sockets of one family.
type Sockets interface {
	Listen() (net.PacketConn, error)
}

// Helpers are the members that can be asked for help.
type Helpers interface {
	// Ask has a member Help, with these arguments. It must not block.
	Ask(helper identity.NodeID, id [12]byte, addr netip.AddrPort) error
}

// Options say what to measure, and by whose help. All addresses are of one family.
type Options struct {
	Sockets Sockets
	Servers []Server     // best first; eight at most are asked
	Hosts   []netip.Addr // the addresses of this host
	Helpers Helpers
	Told    <-chan Told // brings the port of the socket that a helper sends from, with the ID of the ask
}

// local reports whether an address is one of this host.
func (o *Options) local(a netip.Addr) bool { return slices.Contains(o.Hosts, a) }

// Server is a member that answers STUN at an address of the Internet.
type Server struct {
	ID    identity.NodeID
	Addr  netip.AddrPort
	Helps bool // there is a way to ask it for help
}

// Told is a helper's word that it sends from this port.
type Told struct {
	ID   [12]byte
	Port uint16
}

// Answer is what one server said of the socket that asked all of them.
type Answer struct {
	Server Server
	Mapped netip.AddrPort // invalid: no answer
	RTT    time.Duration
}

// Report is what was found out.
type Report struct {
	Answers   []Answer // in the order of Options.Servers
	Port      uint16   // of the socket that asked, on this host
	Mapping   natkind.Mapping
	Filtering natkind.Filtering
	Hairpin   natkind.Outcome // whether the NAT sends packets to its own outside addresses back in (RFC 4787, section 6)
}

// Works reports whether any server has answered.
func (r Report) Works() bool { return r.first().IsValid() }

// first is an address that this host was seen under.
func (r Report) first() netip.AddrPort {
	for _, a := range r.Answers {
		if a.Mapped.IsValid() {
			return a.Mapped
		}
	}
	return netip.AddrPort{}
}

// PortKept reports whether the NAT gave the socket its own port outside, at every server.
func (r Report) PortKept() bool {
	for _, a := range r.Answers {
		if a.Mapped.IsValid() && a.Mapped.Port() != r.Port {
			return false
		}
	}
	return r.Works()
}

// Measure takes up to 3 s, and less where ctx ends before; what is not known by then is reported as unknown. The error says
// that no socket could be opened.
func Measure(ctx context.Context, o Options) (Report, error) {
	o.Servers = o.Servers[:min(len(o.Servers), maxServers)]
	if len(o.Servers) == 0 {
		return Report{}, nil
	}
	r := &run{o: o, ctx: ctx, events: make(chan event, 64), asked: make(map[key]*question), arrived: make(map[key]netip.AddrPort), told: make(map[[12]byte]uint16)}
	defer r.close()
	wide, err := r.open() // writes to all servers
	if err != nil {
		return Report{}, err
	}
	narrow, err := r.open() // writes to one
	if err != nil {
		return Report{}, err
	}
	report := Report{Port: wide.port}
	r.mapping(wide, &report)
	if report.Works() {
		r.filtering(wide, narrow, &report)
	}
	return report, nil
}

// run is one measurement; everything but the sockets' readers happens in Measure's goroutine.
type run struct {
	o       Options
	ctx     context.Context
	events  chan event
	sockets []*socket
	seen    []natkind.Seen // by the wide socket
	asked   map[key]*question
	arrived map[key]netip.AddrPort // requests that came in, and where from
	told    map[[12]byte]uint16
}

// key names a transaction of one socket.
type key struct {
	socket *socket
	id     [12]byte
}

// question is a Binding request that is repeated until it is answered.
type question struct {
	to     netip.AddrPort
	start  time.Time
	sent   int
	mapped netip.AddrPort
	rtt    time.Duration
}

// mapping asks all servers from one socket.
func (r *run) mapping(wide *socket, report *Report) {
	start := time.Now()
	var questions []*question
	for _, server := range r.o.Servers {
		questions = append(questions, r.ask(wide, stunwire.NewID(), server.Addr))
	}
	unanswered := func(q *question) bool { return !q.mapped.IsValid() }
	answered := func(q *question) bool { return q.mapped.IsValid() }
	r.until(start.Add(answerTime), func() bool { return slices.ContainsFunc(questions, answered) })
	r.until(due.Sooner(start.Add(answerTime), time.Now().Add(settleTime)), func() bool { return !slices.ContainsFunc(questions, unanswered) })
	for i, q := range questions {
		report.Answers = append(report.Answers, Answer{Server: r.o.Servers[i], Mapped: q.mapped, RTT: q.rtt})
		if q.mapped.IsValid() {
			r.seen = append(r.seen, natkind.Seen{Server: q.to, Mapped: q.mapped})
		}
	}
	report.Mapping = natkind.MappingOf(r.seen, r.o.local)
}

// filtering writes to one server from a socket that has written to nobody, and has that server and another one write back from
// sockets that nobody has written to. Then the server's second port is asked too: does the mapping mind the port?
func (r *run) filtering(wide, narrow *socket, report *Report) {
	near, far := helpers(report.Answers)
	if near < 0 {
		return
	}
	server := report.Answers[near]
	first := r.ask(narrow, stunwire.NewID(), server.Server.Addr)
	r.until(time.Now().Add(secondTime+2*server.RTT), func() bool { return first.mapped.IsValid() })
	if !first.mapped.IsValid() {
		return
	}
	port := r.help(server.Server.ID, first.mapped)
	var address [12]byte
	if far >= 0 {
		address = r.help(report.Answers[far].Server.ID, first.mapped)
	}
	came := func(id [12]byte) bool { return r.arrived[key{narrow, id}].IsValid() }
	r.until(time.Now().Add(helpTime+2*server.RTT), func() bool { return came(port) && (far < 0 || came(address)) })
	outcome := func(id [12]byte) natkind.Outcome {
		switch {
		case came(id):
			return natkind.Arrived
		case r.told[id] != 0:
			return natkind.Missing
		}
		return natkind.Untested // the helper has not said that it sends: an older version, or busy
	}
	report.Filtering = natkind.FilteringOf(natkind.Arrivals{OtherPort: outcome(port), OtherAddress: outcome(address)})
	// Where a packet came from is known better than where the helper says that it sent from, and perhaps before it.
	helper := r.arrived[key{narrow, port}].Port()
	if helper == 0 {
		helper = r.told[port]
	}
	var second *question
	if helper != 0 {
		second = r.ask(wide, port, netip.AddrPortFrom(server.Server.Addr.Addr(), helper))
	}
	circled := func() bool { return true }
	if report.Mapping != natkind.Unmapped {
		circled = r.circle(wide, narrow, server.Mapped, first.mapped)
	}
	r.until(time.Now().Add(secondTime), func() bool { return (second == nil || second.mapped.IsValid()) && circled() })
	if second != nil && second.mapped.IsValid() {
		r.seen = append(r.seen, natkind.Seen{Server: second.to, Mapped: second.mapped})
		report.Mapping = natkind.MappingOf(r.seen, r.o.local)
	}
	switch {
	case report.Mapping == natkind.Unmapped || report.Mapping.Dependent(): // no address to send to that another socket of this host would be let in by
	case circled():
		report.Hairpin = natkind.Arrived
	default:
		report.Hairpin = natkind.Missing
	}
}

// helpers chooses who is to answer from another port, by the round trip, and who from another address; -1 for nobody.
func helpers(answers []Answer) (near, far int) {
	near, far = -1, -1
	for i, a := range answers {
		if a.Mapped.IsValid() && a.Server.Helps && (near < 0 || a.RTT < answers[near].RTT) {
			near = i
		}
	}
	for i, a := range answers {
		if near >= 0 && far < 0 && a.Server.Helps && a.Server.Addr.Addr() != answers[near].Server.Addr.Addr() {
			far = i
		}
	}
	return near, far
}

// help has a member send to addr, and returns the transaction that it will send with.
func (r *run) help(helper identity.NodeID, addr netip.AddrPort) [12]byte {
	id := stunwire.NewID()
	_ = r.o.Helpers.Ask(helper, id, addr) // what comes of it, if anything, comes by Told
	return id
}

// circle sends from each socket to the other's outside address: the filter of each has then seen that address written to. It
// returns whether one of the two has come in.
func (r *run) circle(wide, narrow *socket, wideOut, narrowOut netip.AddrPort) func() bool {
	there, back := stunwire.NewID(), stunwire.NewID()
	r.ask(wide, there, narrowOut)
	r.ask(narrow, back, wideOut)
	return func() bool { return r.arrived[key{narrow, there}].IsValid() || r.arrived[key{wide, back}].IsValid() }
}

// ask sends a Binding request, and has it repeated until there is an answer.
func (r *run) ask(s *socket, id [12]byte, to netip.AddrPort) *question {
	q := &question{to: to, start: time.Now()}
	r.asked[key{s, id}] = q
	r.send(time.Now())
	return q
}

// send sends what is due, and returns when more will be; zero for nothing more.
func (r *run) send(now time.Time) (next time.Time) {
	for k, q := range r.asked {
		for !q.mapped.IsValid() && q.sent < len(askTimes) && !now.Before(q.start.Add(askTimes[q.sent])) {
			q.sent++
			k.socket.write(stunwire.Probe(k.id), q.to)
		}
		if !q.mapped.IsValid() && q.sent < len(askTimes) {
			next = due.Sooner(q.start.Add(askTimes[q.sent]), next)
		}
	}
	return next
}

// until takes what comes until the condition holds, the time is over, or the context ends.
func (r *run) until(deadline time.Time, done func() bool) {
	for !done() && r.ctx.Err() == nil {
		now := time.Now()
		next := due.Sooner(deadline, r.send(now))
		if !now.Before(deadline) {
			return
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case e := <-r.events:
			r.take(e)
		case t := <-r.o.Told:
			r.told[t.ID] = t.Port
		case <-timer.C:
		case <-r.ctx.Done():
		}
		timer.Stop()
	}
}

func (r *run) take(e event) {
	k := key{e.socket, e.id}
	if !e.mapped.IsValid() {
		r.arrived[k] = e.from
		return
	}
	if q := r.asked[k]; q != nil && q.to == e.from && !q.mapped.IsValid() {
		// From the first one sent: which of them was answered cannot be told, and more are late than lost.
		q.mapped, q.rtt = e.mapped, max(e.at.Sub(q.start), time.Microsecond)
	}
}

// open makes a socket and starts its reader.
func (r *run) open() (*socket, error) {
	c, err := r.o.Sockets.Listen()
	if err != nil {
		return nil, fmt.Errorf("measure NAT: %w", err)
	}
	s, err := newSocket(c)
	if err != nil {
		c.Close()
		return nil, err
	}
	r.sockets = append(r.sockets, s)
	go s.read(r.events)
	return s, nil
}

// close ends the readers.
func (r *run) close() {
	for _, s := range r.sockets {
		s.conn.Close()
		<-s.done
	}
}
