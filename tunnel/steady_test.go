package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// taken is a bind on which some ports are in use.
type taken struct {
	socket
	ports map[uint16]bool
}

func (b *taken) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	if b.ports[port] {
		return nil, 0, syscall.EADDRINUSE
	}
	if port == 0 {
		port = 40000
	}
	return nil, port, nil
}

func TestSteadyBindKeepsThePort(t *testing.T) {
	inner := &taken{ports: map[uint16]bool{1: true}}
	b := &steadyBind{socket: inner, log: slog.New(slog.DiscardHandler)}
	if _, _, err := b.Open(1); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("first port taken: got %v, want EADDRINUSE", err)
	}
	for _, c := range []struct {
		ask, want uint16
		refused   bool
	}{{0, 40000, false}, {2, 2, false}, {1, 2, true}, {2, 2, false}, {3, 3, false}} {
		_, got, err := b.Open(c.ask)
		if err != nil || got != c.want || b.Port() != c.want || (b.refusal() != nil) != c.refused {
			t.Errorf("port %d: got %d, %v, refusal %v, want %d, refused %v", c.ask, got, err, b.refusal(), c.want, c.refused)
		}
	}
	inner.ports[3] = true
	if _, _, err := b.Open(1); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("both taken: got %v, want EADDRINUSE", err)
	}
}

// eventful is a TUN that only has events.
type eventful struct {
	tun.Device
	events chan tun.Event
}

func (e *eventful) Events() <-chan tun.Event { return e.events }

func TestSteadyTUNHidesUpAndDown(t *testing.T) {
	inner := &eventful{events: make(chan tun.Event, 4)}
	for _, e := range []tun.Event{tun.EventDown, tun.EventUp, tun.EventMTUUpdate | tun.EventUp, tun.EventDown} {
		inner.events <- e
	}
	close(inner.events)
	var got []tun.Event
	for e := range newSteadyTUN(inner).Events() {
		got = append(got, e)
	}
	if len(got) != 1 || got[0] != tun.EventMTUUpdate {
		t.Errorf("got %v, want only the change of MTU", got)
	}
}

func TestComplaintsAreRationed(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	c := &complaints{log: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return now }, kinds: make(map[string]*complaint)}
	for i := range 100 {
		c.errorf("send: %v", i)
	}
	c.errorf("other")
	now = now.Add(complaintInterval)
	c.errorf("send: %v", 100)
	var lines []string
	for line := range strings.Lines(out.String()) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), "text=")
		lines = append(lines, rest)
	}
	if got, want := strings.Join(lines, ", "), `"send: 0" skipped=0, other skipped=0, "send: 100" skipped=99`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	secret, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	log.Info("test", "options", Options{Name: "warren0", PrivateKey: secret}, "peer", Peer{PresharedKey: secret})
	if got := out.String(); strings.Contains(got, secret.String()) || !strings.Contains(got, "warren0") || strings.Contains(got, fmt.Sprint(secret[0], " ", secret[1])) {
		t.Errorf("got %s", got)
	}
}
