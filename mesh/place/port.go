package place

import (
	"cmp"
)

// port is the UDP port that the settings of a state name.
func (s Settings) port() uint16 { return cmp.Or(s.Moved, s.Port, DefaultPort) }

// KeepPort notes in the state directory that the agent needs this UDP port instead of the one that was chosen, so that it begins with it
// the next time. The state in memory stays as it is.
func (s *State) KeepPort(port uint16) error {
	return keepSettings(s, func(kept *Settings) { kept.Moved = port })
}

// StartPort is the UDP port with which the agent begins: the one that was kept, unless somebody else has it now, else the one that
// create or join chose.
func (s *State) StartPort() uint16 {
	if moved := s.Settings.Moved; moved != 0 && portFree(moved) {
		return moved
	}
	return cmp.Or(s.Settings.Port, DefaultPort)
}
