package place

import (
	"encoding/json"
	"fmt"

	"warren/mesh/disk"
)

// turn is taken while the settings of a state are changed: what one change has written, the other must not undo. It is no mutex, for it is kept while
// the disk is waited for; nobody takes it who must not wait.
var turn = make(chan struct{}, 1)

// keepSettings changes the settings on disk, as they are there. Those in memory stay as they are.
func keepSettings(s *State, change func(*Settings)) error {
	turn <- struct{}{}
	defer func() { <-turn }()
	raw, err := s.read(fileSettings)
	if err != nil {
		return err
	}
	var kept Settings
	if err := json.Unmarshal(raw, &kept); err != nil {
		return s.damaged(fileSettings, err)
	}
	change(&kept)
	return kept.write(disk.Disk{}, s.Dir)
}

// KeepName notes in the state directory that this node wants to be called so, from the next start on.
func (s *State) KeepName(name string) error {
	if err := ValidName(name); err != nil {
		return fmt.Errorf("rename node: %w", err)
	}
	return keepSettings(s, func(kept *Settings) { kept.Name = name })
}
