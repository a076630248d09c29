package rtnl

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Message is one message of the kernel. It shares the memory of what it was read from.
type Message struct {
	Kind uint16 // RTM_NEWROUTE and the like
	Body []byte // after the header

	flags uint16
}

// Messages yields the messages in what was read at once. What is cut off at its end is left out.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return
			}
			m := Message{Kind: binary.NativeEndian.Uint16(b[4:]), Body: b[unix.SizeofNlMsghdr:size], flags: binary.NativeEndian.Uint16(b[6:])}
			if !yield(m) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// align is the alignment of messages, attributes and next hops alike.
func align(size int) int { return (size + 3) &^ 3 }

// attributes yields kind and value of each attribute.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) || !yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// appendAttribute appends one with its padding.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// number is the value of an attribute of four bytes, 0 when it is none.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// LinkOf returns the index of the interface that a message about a link, an address or a route is about; 0: none, or several.
func (m Message) LinkOf() int {
	switch m.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR: // struct ifinfomsg and ifaddrmsg have it at the same place
		if len(m.Body) >= 8 {
			return int(binary.NativeEndian.Uint32(m.Body[4:]))
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Body) >= unix.SizeofRtMsg {
			for kind, value := range attributes(m.Body[unix.SizeofRtMsg:]) {
				if kind == unix.RTA_OIF {
					return int(number(value))
				}
			}
		}
	}
	return 0
}

// IsDefaultRoute reports whether a message says that a default route has come, changed or gone: a unicast route of the main table to
// everywhere. It looks at the fixed part only (struct rtmsg).
func (m Message) IsDefaultRoute() bool {
	return (m.Kind == unix.RTM_NEWROUTE || m.Kind == unix.RTM_DELROUTE) && isDefault(m.Body)
}
