package place

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"warren/mesh/disk"
	"warren/mesh/identity"
)

const (
	// maxPaths bounds the list.
	maxPaths = 256
	// triedPaths is how many peers a start tries where they were met, those that were used last: five letters of 2,200 bytes to each take
	// a line of 1 Mbit/s less than a second when nobody is there, and who was not used lately can wait for an introduction.
	triedPaths = 8
	// pathsEvery is how long after a write the next one comes at the earliest: what is lost in between costs a start some round trips.
	pathsEvery = 10 * time.Second
)

// Met is the direct path on which a member was reached last.
type Met struct {
	ID   identity.NodeID `json:"id"`
	Addr netip.AddrPort  `json:"addr"`
	At   time.Time       `json:"at"`            // when it was last used, to the second
	RTT  time.Duration   `json:"rtt,omitempty"` // in nanoseconds; 0: not known
}

// Paths are the direct paths on which members were reached last, so that a start can try them at once: the list in paths.json. Make
// one with OpenPaths; Run writes what Keep changes.
//
// A wrong one costs a few packets. What waits to be written is the list as it is then, and nobody waits for the disk.
type Paths struct {
	// constant after OpenPaths
	log   *slog.Logger
	write func(raw []byte) error
	dirty chan struct{}                          // holds a value while the list is newer than the file
	used  func(identity.NodeID) (last time.Time) // when packets went there or came from there; zero: never in this process

	mu   sync.Mutex // guards the rest
	list map[identity.NodeID]Met
}

// OpenPaths reads the paths of earlier runs. A list that is damaged is empty: it is replaced as soon as somebody is met. used says when a member's
// path was last used by this process; it must not call back. logger may be nil.
func OpenPaths(s *State, used func(identity.NodeID) time.Time, logger *slog.Logger) *Paths {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	file := filepath.Join(s.Dir, filePaths)
	p := &Paths{
		log: logger.With("part", "place"), dirty: make(chan struct{}, 1), used: used, list: make(map[identity.NodeID]Met),
		write: func(raw []byte) error { return disk.Disk{}.Write(file, raw, 0o600) },
	}
	raw, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return p
	}
	var list []Met
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err != nil {
		p.log.Warn("remembered paths not read", "file", file, "error", err)
	}
	for _, m := range list[:min(len(list), maxPaths)] {
		if m.Addr.IsValid() && m.Addr.Port() != 0 && !m.ID.IsZero() {
			p.list[m.ID] = m
		}
	}
	return p
}

// Lately returns where to try the members that were used last.
func (p *Paths) Lately() map[identity.NodeID]netip.AddrPort {
	out := make(map[identity.NodeID]netip.AddrPort)
	for _, m := range p.sorted() {
		if len(out) == triedPaths {
			break
		}
		out[m.ID] = m.Addr
	}
	return out
}

// Keep notes the direct path on which a member is reached. It never waits for the disk.
func (p *Paths) Keep(id identity.NodeID, addr netip.AddrPort, rtt time.Duration) {
	if p.keep(Met{ID: id, Addr: addr, At: time.Now().Truncate(time.Second), RTT: rtt}) {
		p.touch()
	}
}

// keep reports whether that is worth a write.
func (p *Paths) keep(m Met) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.list[m.ID]
	if m.RTT == 0 && before.Addr == m.Addr {
		m.RTT = before.RTT
	}
	p.list[m.ID] = m
	return !known || before.Addr != m.Addr
}

// Forget drops a member that is none any more.
func (p *Paths) Forget(id identity.NodeID) {
	p.mu.Lock()
	_, known := p.list[id]
	delete(p.list, id)
	p.mu.Unlock()
	if known {
		p.touch()
	}
}

func (p *Paths) touch() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// sorted is the list, what was used last first.
func (p *Paths) sorted() []Met {
	p.mu.Lock()
	list := make([]Met, 0, len(p.list))
	for _, m := range p.list {
		list = append(list, m)
	}
	p.mu.Unlock()
	slices.SortFunc(list, func(a, b Met) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	return list[:min(len(list), maxPaths)]
}

// Run writes the list after changes, and at the end when ctx ends. It returns nil.
func (p *Paths) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-p.dirty:
			// A moment for those that come up together.
			select {
			case <-time.After(contactsEvery):
			case <-ctx.Done():
				continue
			}
			p.save()
			select {
			case <-time.After(pathsEvery):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
	}
	p.save() // also when the paths were used that are in it
	return nil
}

// save writes the list as it is now.
func (p *Paths) save() {
	list := p.sorted()
	if len(list) == 0 {
		return
	}
	for i := range list {
		if last := p.used(list[i].ID).Truncate(time.Second); last.After(list[i].At) {
			list[i].At = last
		}
	}
	raw, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = p.write(append(raw, '\n'))
	}
	if err != nil {
		p.log.Warn("remembered paths not kept", "file", filePaths, "error", err)
	}
}
