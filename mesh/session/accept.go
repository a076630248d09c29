package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

var errDropped = errors.New("refused after the handshake")

// accept takes in connections until the transport ends.
func (s *Sessions) accept(ctx context.Context, listener *quic.Listener) error {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return fmt.Errorf("accept connection: %w", err)
		}
		s.wait.Go(func() {
			if conn.ConnectionState().TLS.NegotiatedProtocol == alpnJoin {
				s.acceptJoin(ctx, conn)
				return
			}
			if err := s.acceptMember(ctx, conn); err != nil {
				s.counters.add(dropRefused)
				s.log.Debug("connection refused", "address", conn.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// acceptMember turns a connection into a link: chain verified, hello exchanged.
func (s *Sessions) acceptMember(ctx context.Context, conn *quic.Conn) error {
	id, err := s.options.Verify(conn.ConnectionState().TLS.PeerCertificates)
	if err == nil && id == s.options.Self {
		err = &Refusal{Code: CodeRefused, Reason: "this is the same node, or a copy of it"}
	}
	if err != nil {
		told := refusalOf(err)
		conn.CloseWithError(quic.ApplicationErrorCode(told.Code), cleanReason(told.Reason))
		return fmt.Errorf("verify chain: %w", err)
	}
	far, err := s.answerHello(ctx, conn)
	if err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(CodeProtocol), "no hello")
		s.tellRefusal(id, err)
		return fmt.Errorf("read hello: %w", err)
	}
	leaveHalfOpen(conn)
	return s.adopt(newLink(conn, id, far, false, &s.wait, func() { s.counters.add(dropQueueFull) }))
}

// answerHello waits for the dialling side's hello. A connection that lost the race between addresses never says it.
func (s *Sessions) answerHello(ctx context.Context, conn *quic.Conn) (instance, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		return instance{}, err
	}
	st.SetDeadline(time.Now().Add(helloTimeout))
	far, err := readHello(st)
	if err != nil {
		return instance{}, err
	}
	if _, err := st.Write(appendHello(nil, s.instance)); err != nil {
		return instance{}, err
	}
	return far, st.Close()
}

// adopt enters a link into the table and starts serving it.
func (s *Sessions) adopt(l *link) error {
	superfluous, settle := s.table.add(l)
	// Whoever was revoked between the handshake and now was not found by Drop, but is refused here.
	if _, err := s.options.Verify(l.chain); err != nil {
		told := refusalOf(err)
		for _, c := range superfluous {
			c.link.spawn(func() { c.link.close(told.Code, told.Reason) })
		}
		l.close(told.Code, told.Reason)
		s.ended(l)
		return fmt.Errorf("%w: %w", errDropped, err)
	}
	s.log.Debug("session up", "id", l.id.Short(), "address", l.conn.RemoteAddr().String(), "dialled", l.dialled)
	s.wait.Go(func() {
		s.router.readDatagrams(l)
		s.ended(l)
	})
	s.wait.Go(func() { s.router.readStreams(l) })
	s.wait.Go(func() { s.router.readMessages(l) })
	for _, c := range superfluous {
		c.link.spawn(func() { c.link.close(c.code, c.reason) })
	}
	if settle != nil {
		settle.check(func() { s.settle(settle) })
	}
	for _, frame := range s.router.parking.take(time.Now(), l.id) {
		l.push(frame)
	}
	return nil
}

// settle ends a simultaneous dial in favour of l, which has just answered.
func (s *Sessions) settle(l *link) {
	other := s.table.keep(l)
	if other == nil {
		return
	}
	grace := time.NewTimer(duplicateGrace)
	defer grace.Stop()
	select {
	case <-grace.C:
		other.close(CodeDuplicate, "dialled at the same time")
	case <-other.conn.Context().Done():
	case <-l.conn.Context().Done(): // then the other one serves on
	}
}

// ended takes a link out when its connection has ended.
func (s *Sessions) ended(l *link) {
	l.end()
	cause := context.Cause(l.conn.Context())
	code, reason, byPeer := closeCause(cause)
	s.log.Debug("session down", "id", l.id.Short(), "code", code, "reason", reason, "by_peer", byPeer)
	if left := s.table.remove(l, cause); left != nil {
		left.check(nil)
	}
	close(l.gone)
}

// tellRefusal tells the user when a member that we accept has refused us.
func (s *Sessions) tellRefusal(id identity.NodeID, err error) {
	app, ok := errors.AsType[*quic.ApplicationError](err)
	if !ok || !app.Remote {
		return
	}
	switch code := uint64(app.ErrorCode); code {
	case CodeShutdown, CodeDuplicate, CodeReplaced, CodeUnresponsive, CodeUnneeded, CodeProtocol:
	default:
		s.events.put(Event{Kind: Refused, ID: id, Code: code, Reason: cleanReason(app.ErrorMessage)})
	}
}
