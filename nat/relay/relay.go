// Package relay is the control plane of relaying: two members that cannot punch each open a channel at one anchor,
// and the anchor joins the two halves. A channel is asked for on the control session, which has proven who asks,
// so there are no credentials to hand out, to expire or to steal, and revocation ends a channel with the session.
//
// Data does not pass through here: it travels as ChannelData (RFC 8656, section 12.4) on the one UDP port, where the
// socket's forwarder rewrites the channel number. Whether a relayed path is used is package nat's choice.
//
// Server and Client may be used by several goroutines at once.
//
// The control stream, one for each channel:
//
//	client → anchor   version (1) ‖ ID of the peer (32)
//	anchor → client   status (1) ‖ channel number (2, big endian; 0 unless granted)
//	client → anchor   bye (1), optional: give the channel back at once
//
// A stream that ends without bye leaves the channel in place for Linger, so that losing a control session does not
// cut a working path; opening the same channel again within that time takes it over, with its number.
//
// A request for the peer zero asks for no channel but for the load: the anchor grants it with channel number 0, then
// writes its load as one byte, and again whenever that has changed by a notable amount.
package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"warren/mesh/identity"
)

// Half is one end of a relayed path as the relay sees it: where a member sends from, and its channel number.
type Half struct {
	Addr    netip.AddrPort
	Channel uint16
}

const (
	version = 1
	bye     = 0

	// Channel numbers of RFC 8656, section 12. Two members that relay for each other number channels on the same pair
	// of addresses: the one with the smaller ID takes the lower half.
	firstChannel  = 0x4000
	middleChannel = 0x4800
	lastChannel   = 0x4fff
)

// status is the anchor's answer to a request.
type status byte

const (
	granted status = iota
	refusedNotMember
	refusedFull
	refusedVersion
	refusedOff
	refusedBusy
)

// Errors of Client.Open, as the anchor stated them.
var (
	ErrNotMember = errors.New("the relay does not know the peer as a member")
	ErrFull      = errors.New("the relay has no channel left")
	ErrVersion   = errors.New("the relay speaks another version")
	ErrOff       = errors.New("the member does not relay")
	ErrBusy      = errors.New("the relay was asked for too much at once")
)

func (s status) err() error {
	switch s {
	case granted:
		return nil
	case refusedNotMember:
		return ErrNotMember
	case refusedFull:
		return ErrFull
	case refusedOff:
		return ErrOff
	case refusedBusy:
		return ErrBusy
	default:
		return ErrVersion
	}
}

func writeRequest(w io.Writer, peer identity.NodeID) error {
	_, err := w.Write(append([]byte{version}, peer[:]...))
	return err
}

func readRequest(r io.Reader) (peer identity.NodeID, s status, err error) {
	var buf [33]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return peer, refusedVersion, fmt.Errorf("read relay request: %w", err)
	}
	if buf[0] != version {
		return peer, refusedVersion, nil
	}
	return identity.NodeID(buf[1:]), granted, nil
}

func writeReply(w io.Writer, s status, channel uint16) error {
	_, err := w.Write(binary.BigEndian.AppendUint16([]byte{byte(s)}, channel))
	return err
}

func readReply(r io.Reader) (channel uint16, err error) {
	if channel, err = readGrant(r); err != nil {
		return 0, err
	}
	if channel < firstChannel || channel > lastChannel {
		return 0, fmt.Errorf("read the relay's reply: channel number %#x: %w", channel, ErrVersion)
	}
	return channel, nil
}

// readGrant is readReply for what may be no channel.
func readGrant(r io.Reader) (channel uint16, err error) {
	var buf [3]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return 0, fmt.Errorf("read the relay's reply: %w", err)
	}
	if err := status(buf[0]).err(); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(buf[1:]), nil
}
