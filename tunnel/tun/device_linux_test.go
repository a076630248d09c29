package tun

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"warren/tunnel/osnet/osnettest"
)

// frames hands each packet of what was read to a channel, and says how many frames they came in.
type frames struct {
	packets chan string
	large   chan int // sizes of frames of several packets
}

func (s *frames) Frame(frame []byte) {
	kind := readHeader(frame).kind
	size := len(frame)
	var split Segments
	if split.Split(frame) != nil {
		return
	}
	n := 0
	for p, ok := split.Next(); ok; p, ok = split.Next() {
		n++
		select {
		case s.packets <- string(p):
		default:
		}
	}
	if kind != kindNone && n > 1 {
		select {
		case s.large <- size:
		default:
		}
	}
}

func (s *frames) Dry() {}

func run(t *testing.T, args ...string) {
	t.Helper()
	if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, text)
	}
}

func TestDeviceInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	d, err := Open(Options{Name: "wt%d"})
	if err != nil {
		t.Fatal(err)
	}
	if d.Name() != "wt0" || !d.Offloads().TCP {
		t.Errorf("got name %q and %+v, want wt0 with TCP", d.Name(), d.Offloads())
	}
	if _, err := Open(Options{Name: "wt0"}); !errors.Is(err, os.ErrExist) {
		t.Errorf("open it twice: got %v, want os.ErrExist", err)
	}
	if err := errors.Join(d.SetMTU(1400), d.SetQueue(32)); err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("ip", "link", "show", "wt0").Output()
	if err != nil || !strings.Contains(string(text), "mtu 1400") || !strings.Contains(string(text), "qlen 32") {
		t.Errorf("got %s, %v, want mtu 1400 and qlen 32", text, err)
	}
	if _, err := d.Write(make([]byte, 60)); err == nil {
		t.Error("write to an interface that is down: got no error")
	}
	run(t, "addr", "add", "100.64.0.1/24", "dev", "wt0")
	run(t, "link", "set", "wt0", "up")
	s := &frames{packets: make(chan string, 1000), large: make(chan int, 1000)}
	ended := make(chan error, 1)
	go func() { ended <- d.Pump(s) }()
	c, err := net.Dial("udp", "100.64.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("what the host sends")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(30 * time.Second); ; {
		select {
		case p := <-s.packets:
			if !strings.HasSuffix(p, "what the host sends") {
				continue // IPv6 has something to say about itself
			}
			if f := flowOf([]byte(p)); !f.right([]byte(p)) {
				t.Error("the checksum of what was read is wrong")
			}
		case <-deadline:
			t.Fatal("nothing was read of what the host sent")
		}
		break
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("pump of a closed device: got %v, want os.ErrClosed", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("pump goes on after close")
	}
}

// TestRemovedInNamespace asserts that an interface that somebody else removes ends its Pump.
func TestRemovedInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	d, err := Open(Options{Name: "wt0", Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Offloads() != (Offloads{}) {
		t.Errorf("plain: got %+v, want none", d.Offloads())
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Pump(&frames{}) }()
	run(t, "link", "del", "wt0")
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want os.ErrNotExist", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("pump goes on without an interface")
	}
}
