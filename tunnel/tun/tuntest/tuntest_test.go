package tuntest

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"warren/tunnel/tun"
)

// echo writes back what it was handed when nothing waits any more.
type echo struct {
	d     *Device
	kept  [][]byte
	dries int
}

func (e *echo) Frame(frame []byte) { e.kept = append(e.kept, append([]byte(nil), frame...)) }

func (e *echo) Dry() {
	e.dries++
	for _, frame := range e.kept {
		_, _ = e.d.Write(frame)
	}
	e.kept = nil
}

func TestDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(tun.Offloads{TCP: true})
		ended := make(chan error)
		e := &echo{d: d}
		go func() { ended <- d.Pump(e) }()
		synctest.Wait()
		frame := make([]byte, tun.HeaderSize+20)
		for range 3 {
			if !d.Put(frame) {
				t.Error("put: got no room")
			}
		}
		synctest.Wait()
		if got := len(d.Taken()); got != 3 {
			t.Errorf("got %d frames back, want 3", got)
		}
		if got := len(d.Taken()); got != 0 {
			t.Errorf("taken twice: got %d frames, want 0", got)
		}
		if e.dries < 2 {
			t.Errorf("got %d times dry, want at least 2", e.dries)
		}
		if err := d.SetQueue(0); err != nil || d.Put(frame) {
			t.Errorf("with a queue of 0: got room, or %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("pump of a closed device: got %v, want os.ErrClosed", err)
		}
		if _, err := d.Write(frame); !errors.Is(err, os.ErrClosed) {
			t.Errorf("write to a closed device: got %v, want os.ErrClosed", err)
		}
	})
}
