package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"warren/mesh/identity"
)

type Sessions struct{}

func New(o Options) (*Sessions, error)                                     { return &Sessions{}, nil }
func (s *Sessions) Run(ctx context.Context) error                          { return errors.ErrUnsupported }
func (s *Sessions) SetTargets([]Target)                                    {}
func (s *Sessions) Redial()                                                {}
func (s *Sessions) Send(to identity.NodeID, p Proto, payload []byte) error { return ErrNoRoute }
func (s *Sessions) Open(ctx context.Context, to identity.NodeID, p Proto) (net.Conn, error) {
	return nil, ErrNoRoute
}
func (s *Sessions) Drop(id identity.NodeID, code uint64, reason string) {}
func (s *Sessions) Events() <-chan Event                                { return nil }
func (s *Sessions) Snapshot() []Status                                  { return nil }
func (s *Sessions) Remote(id identity.NodeID) (netip.AddrPort, bool)    { return netip.AddrPort{}, false }
func (s *Sessions) RTT(id identity.NodeID) (time.Duration, bool)        { return 0, false }
