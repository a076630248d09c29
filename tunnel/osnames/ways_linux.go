package osnames

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"warren/tunnel/resolved"
)

// ways are what Linux has, the better one first.
func ways(o Options) []way {
	return []way{&service{conf: "/etc/resolv.conf", switches: "/etc/nsswitch.conf", dial: resolved.Dial}, inFile(o)}
}

// service is systemd-resolved.
type service struct {
	conf, switches string
	dial           func(context.Context) (*resolved.Client, error)

	client *resolved.Client
	index  int // of the link that was told; 0: none
}

func (s *service) name() string { return string(Resolved) }
func (s *service) says() string { return "systemd-resolved asks the agent" }
func (s *service) holds() bool  { return s.index != 0 }

// lacks looks whether the service runs, and whether programs ask it: by its stub, or by nss-resolve.
func (s *service) lacks(ctx context.Context, d Desired) string {
	if s.client == nil {
		client, err := s.dial(ctx)
		if err != nil {
			return resolved.ErrAbsent.Error()
		}
		s.client = client
	}
	if len(d.Servers) == 0 {
		return notAnswering
	}
	running, err := s.client.Running(ctx)
	switch {
	case err != nil:
		s.close()
		return fmt.Sprintf("the system's bus does not answer: %v", err)
	case !running:
		return resolved.ErrAbsent.Error()
	case !asksStub(s.conf) && !asksService(s.switches):
		return "systemd-resolved runs, but programs do not ask it: " + s.conf + " names other servers"
	}
	return ""
}

// asksStub reports whether resolv.conf(5) leads to the service's own address.
func asksStub(path string) bool {
	return eachLine(path, func(fields []string) bool {
		return len(fields) > 1 && fields[0] == "nameserver" && (fields[1] == "127.0.0.53" || fields[1] == "127.0.0.54")
	})
}

// asksService reports whether nsswitch.conf(5) has programs ask the service.
func asksService(path string) bool {
	return eachLine(path, func(fields []string) bool {
		if len(fields) == 0 || fields[0] != "hosts:" {
			return false
		}
		for _, f := range fields[1:] {
			if f == "resolve" {
				return true
			}
		}
		return false
	})
}

// eachLine reports whether a line of a file, without its comment, is one that is looked for.
func eachLine(path string, is func(fields []string) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if is(strings.Fields(text)) {
			return true
		}
	}
	return false
}

func (s *service) set(ctx context.Context, d Desired) error {
	link, err := net.InterfaceByName(d.Link)
	if err != nil {
		return fmt.Errorf("tell systemd-resolved: interface %s: %w", d.Link, err)
	}
	told := resolved.Link{Index: link.Index, Servers: d.Servers, Domains: []resolved.Domain{{Name: d.Domain}}}
	for _, zone := range d.Reverse {
		told.Domains = append(told.Domains, resolved.Domain{Name: zone, Route: true})
	}
	if err := s.client.Set(ctx, told); err != nil {
		return err
	}
	s.index = link.Index
	return nil
}

func (s *service) clear(ctx context.Context) error {
	if s.index == 0 || s.client == nil {
		return nil
	}
	err := s.client.Clear(ctx, s.index)
	s.index = 0
	if errors.Is(err, resolved.ErrAbsent) {
		return nil // it has forgotten by itself
	}
	return err
}

// sweep has nothing to do: what the service knows of a link goes with the link.
func (s *service) sweep(context.Context) error { return nil }

func (s *service) changes() <-chan struct{} {
	if s.client == nil {
		return nil
	}
	return s.client.Changes()
}

func (s *service) close() {
	if s.client != nil {
		s.client.Close()
		s.client, s.index = nil, 0
	}
}
