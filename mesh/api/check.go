package api

import (
	"fmt"
	"time"
	"unicode"
)

func refuse(format string, args ...any) error {
	return &Error{Code: CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

func (r *PingRequest) check() error {
	switch {
	case r.Peer == "" || len(r.Peer) > 255:
		return refuse("ping: want the name, address or ID of a peer")
	case r.Count < 1 || r.Count > MaxPings:
		return refuse("ping: count %d: want 1 to %d", r.Count, MaxPings)
	case r.IntervalMS < int(MinPingInterval/time.Millisecond) || r.IntervalMS > int(time.Hour/time.Millisecond):
		return refuse("ping: interval of %d ms: want %s to 1h", r.IntervalMS, MinPingInterval)
	case r.TimeoutMS < 1 || r.TimeoutMS > int(MaxPingTimeout/time.Millisecond):
		return refuse("ping: timeout of %d ms: want 1 ms to %s", r.TimeoutMS, MaxPingTimeout)
	}
	return nil
}

func (r *InviteRequest) check() error {
	switch {
	case r.Uses < 1 || r.Uses > MaxUses:
		return refuse("invite: %d uses: want 1 to %d", r.Uses, MaxUses)
	case r.ValidForMS < 1 || r.ValidForMS > MaxInviteLife.Milliseconds():
		return refuse("invite: life of %d ms: want more than nothing and at most ten years", r.ValidForMS)
	case len(r.Tags) > MaxTags:
		return refuse("invite: %d tags: want at most %d", len(r.Tags), MaxTags)
	}
	for _, tag := range r.Tags {
		if tag == "" || len(tag) > MaxTagLength || !printable(tag) {
			return refuse("invite: tag %.80q: want 1 to %d printable characters", tag, MaxTagLength)
		}
	}
	return nil
}

// printable keeps control characters out of what other people's terminals will show.
func printable(text string) bool {
	for _, c := range text {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

// complete fills in what a Backend may leave out, so that lists are [] and never null.
func (s Status) complete() Status {
	s.Schema = Schema
	s.Self.Addresses, s.Self.Tags = orEmpty(s.Self.Addresses), orEmpty(s.Self.Tags)
	s.Self.Endpoints, s.Self.Anchors = orEmpty(s.Self.Endpoints), orEmpty(s.Self.Anchors)
	s.Peers = append([]Peer{}, s.Peers...) // a copy: the Backend's slice may be shared
	for i, p := range s.Peers {
		s.Peers[i] = p.complete()
	}
	s.Invites = append([]Invited{}, s.Invites...)
	for i := range s.Invites {
		s.Invites[i].Tags = orEmpty(s.Invites[i].Tags)
	}
	s.Revoked, s.Warnings, s.Admins = orEmpty(s.Revoked), orEmpty(s.Warnings), orEmpty(s.Admins)
	if s.Dropped == nil {
		s.Dropped = map[string]uint64{}
	}
	return s
}

func (p Peer) complete() Peer {
	p.Addresses, p.Routes, p.Tags = orEmpty(p.Addresses), orEmpty(p.Routes), orEmpty(p.Tags)
	if p.Path.Kind == "" {
		p.Path.Kind = PathNone
	}
	return p
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
