package standing

import (
	"context"
	"crypto/rand"
	"reflect"
	"sync"
	"time"

	"warren/nat/due"
	"warren/nat/reach"
)

// loop is what Run's goroutine owns.
type loop struct {
	*Standing
	snap    Snapshot // what is known of this node; published at the end of each step
	machine *reach.Machine
	lookAt  time.Time // when this host's addresses are to be read
	held    held
	timer   *time.Timer
	work    sync.WaitGroup // every goroutine of Run but its own

	// The measurement under way.
	measured chan outcome       // holds one: no second one begins before it was taken
	cancel   context.CancelFunc // nil: none is under way
}

// Run reads this host's addresses, and has them tested, until ctx ends; then it returns nil. It is called once.
//
// Steps are the loop's only work: they do what is due, and publish.
func (s *Standing) Run(ctx context.Context) error {
	l := &loop{
		Standing: s, machine: reach.New(newID), timer: time.NewTimer(0), measured: make(chan outcome, 1),
	}
	defer close(s.ended)
	defer l.work.Wait()
	defer l.timer.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	network, mapped := s.o.Network, s.o.Mapper.Events()
	l.enterNetwork()
	for {
		l.step(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-network:
			if !open {
				network = nil
				continue
			}
			l.enterNetwork()
		case _, open := <-mapped:
			if !open {
				mapped = nil
			}
		case <-s.poke:
		case id := <-s.arrived:
			l.machine.Seen(time.Now(), id)
		case r := <-s.unable:
			l.machine.Unable(time.Now(), r.helper, r.id)
		case o := <-s.orders:
			l.work.Go(func() { s.help(ctx, o) })
		case o := <-l.measured:
			l.takeOutcome(o)
		case <-l.timer.C:
		}
	}
}

// newID makes a transaction that nobody can guess.
func newID() (id [12]byte) {
	rand.Read(id[:]) // never fails
	return id
}

// enterNetwork makes what was found out in the network before count no more.
func (l *loop) enterNetwork() {
	l.snap.Network++
	l.snap.IPv4, l.snap.IPv6 = Measurement{}, Measurement{}
	l.lookAt = time.Time{}
	l.machine.NetworkChanged()
	if l.cancel != nil {
		l.cancel() // what it finds belongs to no network; who waits gets another one
	}
	if l.snap.Network > 1 {
		l.o.Mapper.Changed()
	}
}

// step does what is due at now, and publishes what is known then.
func (l *loop) step(ctx context.Context, now time.Time) {
	wake := l.readHosts(now)
	wake = due.Sooner(wake, l.expire(now))
	if d := l.desired.Load(); d != nil {
		l.readMapper(d)
		wake = due.Sooner(wake, l.testReach(now, d))
		wake = due.Sooner(wake, l.readTaken(now, d))
		l.measure(ctx, now, d)
		l.snap.Settled = true
	}
	l.publish()
	if !wake.IsZero() {
		l.timer.Reset(time.Until(wake))
	}
}

// publish shows what is known, and says so if it is news.
func (l *loop) publish() {
	if reflect.DeepEqual(*l.snapshot.Load(), l.snap) {
		return
	}
	now := l.snap // its slices are made anew, never changed
	l.snapshot.Store(&now)
	select {
	case l.events <- struct{}{}:
	default:
	}
}
