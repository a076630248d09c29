package session

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

// reception takes in what others dial: members, whose connections become links, and joiners.
type reception struct {
	// constant
	self     identity.NodeID
	instance instance
	members  Members
	roster   Roster
	inbound  Inbound
	gate     *gate
	keeper   *keeper
	proofs   *proofs
	events   *mailbox
	counters *counters
	wait     *sync.WaitGroup
	log      *slog.Logger
}

// run takes in connections until the transport ends.
func (r *reception) run(ctx context.Context, listener *quic.Listener) error {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return fmt.Errorf("accept connection: %w", err)
		}
		r.wait.Go(func() {
			if s := slotOf(conn); s != nil && !s.hold(conn) {
				return // it had to give way during its handshake
			}
			if conn.ConnectionState().TLS.NegotiatedProtocol == alpnJoin {
				r.join(ctx, conn)
				return
			}
			if err := r.member(ctx, conn); err != nil {
				r.counters.add(dropRefused)
				r.log.Debug("connection refused", "address", conn.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// member turns a connection into a link: chain verified, hello exchanged.
func (r *reception) member(ctx context.Context, conn *quic.Conn) error {
	id, err := r.members.Verify(conn.ConnectionState().TLS.PeerCertificates)
	if err == nil && id == r.self {
		err = &Refusal{Code: CodeRefused, Reason: "this is the same node, or a copy of it"}
	}
	if err != nil {
		r.proofs.answer(ctx, conn, refusalOf(err))
		return fmt.Errorf("verify chain: %w", err)
	}
	far, err := r.answerHello(ctx, conn)
	if err != nil {
		r.proofs.heard(id, conn, err)
		conn.CloseWithError(quic.ApplicationErrorCode(CodeProtocol), "no hello")
		if r.roster.Member(id) { // strangers could tell without end, each time by another name
			r.events.refused(id, err)
		}
		return fmt.Errorf("read hello: %w", err)
	}
	leaveHalfOpen(conn)
	_, err = r.keeper.adopt(r.keeper.link(conn, id, false), far)
	return err
}

// longHello is how long a hello may take over the longest lines.
const longHello = 10 * time.Second

// helloWithin is how long a hello may take on a connection: four of its round trips when those are long. A handshake that is given up is
// made once more, which on a slow line makes the round trip longer still.
func helloWithin(conn *quic.Conn) time.Duration {
	return min(max(helloTimeout, 4*conn.ConnectionStats().SmoothedRTT), longHello)
}

// answerHello waits for the dialling side's hello. A connection that lost the race between addresses never says it.
func (r *reception) answerHello(ctx context.Context, conn *quic.Conn) (instance, error) {
	limit := helloWithin(conn)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		return instance{}, err
	}
	st.SetDeadline(time.Now().Add(limit))
	far, err := readHello(st)
	if err != nil {
		return instance{}, err
	}
	if _, err := st.Write(appendHello(nil, r.instance)); err != nil {
		return instance{}, err
	}
	return far, st.Close()
}
