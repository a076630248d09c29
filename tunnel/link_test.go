package tunnel

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

// slowly is a link on which each Set takes a while.
type slowly struct {
	osnet.Link
	takes time.Duration
}

func (s slowly) Set(config osnet.Config) error {
	time.Sleep(s.takes)
	return s.Link.Set(config)
}

// verified is what a test says has been verified.
type verified struct {
	grown chan struct{}
	most  int
}

func (v *verified) Grown() <-chan struct{} { return v.grown }
func (v *verified) Most() int              { return v.most }

// linkedTo runs the link of an interface w0 of m until the bubble's test ends, and returns how others speak to it.
func linkedTo(t *testing.T, m *osnettest.Machine, takes time.Duration, v *verified) (*linked, *turns[linked]) {
	t.Helper()
	inner, err := m.Open("w0", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := newLinked("w0", slowly{inner, takes}, v, func() {}, slog.New(slog.DiscardHandler))
	ready := make(chan struct{})
	close(ready)
	others := &turns[linked]{make(chan call[linked]), ready, t.Context().Done()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		l.run(ctx, others.calls)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		l.close()
	})
	return l, others
}

// TestLinkTakesItsTime asserts what holds while the kernel is slow, and when it is done.
func TestLinkTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := osnettest.New(), &verified{grown: make(chan struct{}, 1)}
		_, others := linkedTo(t, m, 3*time.Second, v)
		began := time.Now()
		mtu := func(what string, at time.Duration, want int) {
			t.Helper()
			time.Sleep(at - time.Since(began))
			synctest.Wait()
			if config, _ := m.Config("w0"); config.MTU != want {
				t.Errorf("%s, at %v: got MTU %d, want %d", what, at, config.MTU, want)
			}
		}
		addrs := prefixes("100.70.1.2/32 fd01::2/128 fd02::2/128")
		answers := make(chan error)
		set := func(config osnet.Config) {
			go func() { answers <- others.do(func(l *linked) error { return l.set(config) }) }()
			synctest.Wait()
		}
		set(osnet.Config{Addrs: addrs, Up: true})
		v.most = 1500 // no jumbo frame
		v.grown <- struct{}{}
		mtu("still setting", 3*time.Second-1, 1500) // the twin's own
		if err := <-answers; err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("set: got %v after %v, want no error after 3 s", err, time.Since(began))
		}
		mtu("set", 3*time.Second, DefaultMTU)
		v.most = 8928
		v.grown <- struct{}{}
		mtu("growing", 6*time.Second-1, DefaultMTU)
		mtu("grown", 6*time.Second, 8928)

		// What is configured holds.
		set(osnet.Config{Addrs: prefixes("100.70.1.2/32"), MTU: 1420, Up: true})
		v.most = 9152
		v.grown <- struct{}{}
		if err := <-answers; err != nil {
			t.Error(err)
		}
		mtu("configured", time.Minute, 1420)

		// What had grown holds again; that there is no IPv6 is no error.
		m.Without6()
		set(osnet.Config{Addrs: addrs, Up: true})
		if err := <-answers; err != nil {
			t.Errorf("without IPv6: got %v, want no error", err)
		}
		mtu("not configured any more", time.Minute+3*time.Second, 8928)
	})
}
