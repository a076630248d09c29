package api

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Denials is the answer to GET /v1/policy/log and the output of `warren policy log --json`: what did not pass here lately.
type Denials struct {
	Schema int       `json:"schema"`
	Time   time.Time `json:"time"`
	Denied []Denied  `json:"denied"` // the latest first
	// Dropped are the packets that did not pass since the agent's start, by reason: also those that no honest machine sends.
	Dropped map[string]uint64 `json:"dropped"`
}

// Denied is what may not begin, by pair and port.
type Denied struct {
	From      string     `json:"from"` // a member's name, or the address
	To        string     `json:"to"`
	Source    netip.Addr `json:"source"`
	Target    netip.Addr `json:"target"`
	Protocol  string     `json:"protocol"` // tcp, udp, icmp or IANA's number
	Port      uint16     `json:"port"`     // 0: several, or a protocol without ports
	Direction string     `json:"direction"`
	Reason    string     `json:"reason"` // in words
	Count     uint64     `json:"count"`  // of packets
	First     time.Time  `json:"first"`
	Last      time.Time  `json:"last"`
}

// The directions of Denied.
const (
	DeniedIn  = "in"  // it came from another member
	DeniedOut = "out" // a program of this machine was told at once
)

// Denials asks what did not pass lately.
func (c *Client) Denials(ctx context.Context) (Denials, error) {
	var out Denials
	err := c.call(ctx, http.MethodGet, "/v1/policy/log", nil, &out)
	return out, err
}

func (s *Server) denials(w http.ResponseWriter, r *http.Request) error {
	found, err := s.backend.Denials(r.Context())
	if err != nil {
		return err
	}
	found.Schema = Schema
	if found.Denied == nil {
		found.Denied = []Denied{}
	}
	return s.answer(w, found)
}
