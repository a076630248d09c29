package node

import (
	"encoding/binary"
	"fmt"
)

// The shared port moves when something behind this host has mapped it to itself, which only another port can cure. It does so a few times:
// where the port is another one outside whatever it is, the host's own firewall is to blame, and moving helps nobody.
const (
	maxMoves  = 2
	firstPort = 20000 // below those that systems give out by themselves
	portSpan  = 10000
)

// move is where the shared port has been moved to.
type move struct {
	to    uint16 // 0: it was not
	count int
}

// planMove decides whether the port moves now. It does not where a person, or another member, counts on it.
func planMove(f facts) move {
	m := f.here.move
	taken := f.standing.Taken
	if taken.Port == 0 || taken.Port != f.port || m.count >= maxMoves || f.counted() {
		return m
	}
	seed := binary.BigEndian.Uint64(f.self[:8])
	return move{to: uint16(firstPort + (seed+uint64(m.count)*7919)%portSpan), count: m.count + 1}
}

// counted reports whether the port is in the settings, or strangers have been seen to come in by it.
func (f facts) counted() bool {
	if f.settings.Interface.Port != 0 {
		return true
	}
	for _, name := range f.ownEndpoints() {
		if at, ok := f.names[name]; ok && at.Port() == f.port {
			return true
		}
	}
	return f.standing.LetsIn(f.port)
}

// portTaken says what is wrong where the port does not move.
func (f facts) portTaken() string {
	return fmt.Sprintf("UDP port %d of this machine is another one outside (%s): a machine behind this one, which translates for it, uses the same port and "+
		"gets what comes for it; give one of the two another: port = %d in [interface] of its configuration", f.port, f.standing.Taken.Seen, f.port+1)
}
