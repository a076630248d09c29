package rtnl

import (
	"context"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	// groupUserOption is RTNLGRP_ND_USEROPT as a mask.
	groupUserOption = 1 << 19
	// userOption is the size of struct nduseroptmsg.
	userOption = 16
)

// Advertised hands on the options of router advertisements (RFC 4861) that the kernel has taken, as far as it leaves them to others: PREF64
// among them (seen with Linux 6.18). Each comes with its header of two bytes, when an advertisement does; the kernel keeps none. each is called by
// one goroutine, which ends with ctx, and what it is given is its own.
func Advertised(ctx context.Context, each func(link int, option []byte)) error {
	_, err := subscribe(ctx, groupUserOption, func(m Message) bool {
		if link, options, ok := m.userOptions(); ok {
			for len(options) >= 8 {
				size := 8 * int(options[1])
				if size == 0 || size > len(options) {
					break
				}
				each(link, append([]byte(nil), options[:size]...))
				options = options[size:]
			}
		}
		return false
	})
	return err
}

// userOptions reads a struct nduseroptmsg and what follows it.
func (m Message) userOptions() (link int, options []byte, ok bool) {
	if m.Kind != unix.RTM_NEWNDUSEROPT || len(m.Body) < userOption || m.Body[0] != unix.AF_INET6 {
		return 0, nil, false
	}
	size := int(binary.NativeEndian.Uint16(m.Body[2:]))
	if size > len(m.Body)-userOption {
		return 0, nil, false
	}
	return int(int32(binary.NativeEndian.Uint32(m.Body[4:]))), m.Body[userOption : userOption+size], true
}
