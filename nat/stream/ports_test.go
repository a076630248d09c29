package stream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/session/sessiontest"
)

// idle is a listener to which nobody comes.
type idle struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (l *idle) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *idle) Close() error              { l.once.Do(func() { close(l.closed) }); return nil }

// A port that is taken is tried again within seconds, more and more seldom, and anew from the beginning for each that is lost.
func TestTakenPortIsTriedSoon(t *testing.T) {
	mesh, err := sessiontest.NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	n, err := mesh.NewNode()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Members: members{n, mesh.Verify}})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var tries []string
		taken, began := true, time.Now()
		s.listen = func(port uint16) (net.Listener, error) {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, fmt.Sprintf("%v %d", time.Since(began), port))
			if taken && port == 443 {
				return nil, syscall.EADDRINUSE
			}
			return &idle{closed: make(chan struct{})}, nil
		}
		set := func(is bool) {
			mu.Lock()
			defer mu.Unlock()
			taken, tries = is, nil
		}
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(tries, want) {
				t.Errorf("got tries %q, want %q", tries, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, &attaching{}) }()
		synctest.Wait()
		s.SetPorts(9277, 443)
		time.Sleep(75*time.Second + 1)
		expect("0s 9277", "0s 443", "1s 443", "3s 443", "7s 443", "15s 443", "31s 443", "51s 443", "1m11s 443")
		set(false)
		time.Sleep(time.Minute)
		expect("1m31s 443")
		set(true)
		s.SetPorts(9277)
		synctest.Wait()
		s.SetPorts(9277, 443)
		time.Sleep(4 * time.Second)
		expect("2m15.000000001s 443", "2m16.000000001s 443", "2m18.000000001s 443")
		cancel()
		<-done
	})
}
