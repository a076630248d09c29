package place

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/disk"
	"warren/mesh/identity"
)

const (
	// maxContacts bounds the list: the newest addresses are the likeliest.
	maxContacts = 32
	// contactsEvery is how long after a write the next one comes at the earliest: sessions come up many at a time, and each
	// write waits for the disk twice.
	contactsEvery = time.Second
	// contactsRetry is how long after a write that failed the next one is tried: soon enough for who has just made room.
	contactsRetry = 10 * time.Second
)

// Contact is an address at which a member was reached once.
type Contact struct {
	ID   identity.NodeID `json:"id"`
	Addr netip.AddrPort  `json:"addr"`
}

// Contacts are the addresses at which members were reached, for a start when no anchor answers: the list in contacts.json.
// Make one with OpenContacts; Run writes what Add changes.
//
// What waits to be written is the newest list, never a queue: however slow the disk, Add does not wait, and a burst of
// contacts costs two writes at most.
type Contacts struct {
	// constant after OpenContacts
	log   *slog.Logger
	write func(raw []byte) error // replaces the file
	dirty chan struct{}          // holds a value while the list is newer than the file

	mu   sync.Mutex                // one Add at a time
	list atomic.Pointer[[]Contact] // newest first; replaced as a whole under mu, its slice never changed

	trouble atomic.Pointer[error] // of the last write; nil: none
}

// OpenContacts reads the contacts of earlier runs, and where this node was admitted. A damaged list is set aside, and nothing
// else is lost with it: the text of the warning, for a person, says so. logger may be nil.
func OpenContacts(s *State, logger *slog.Logger) (c *Contacts, warning string) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	path := filepath.Join(s.Dir, fileContacts)
	c = &Contacts{
		log: logger.With("part", "place"), dirty: make(chan struct{}, 1),
		write: func(raw []byte) error { return disk.Disk{}.Write(path, raw, 0o600) },
	}
	list, warning := readContacts(path)
	for _, addr := range s.Settings.Contacts {
		if met := (Contact{ID: s.Settings.Admitter, Addr: addr}); !slices.Contains(list, met) {
			list = append(list, met)
		}
	}
	list = slices.Clip(list[:min(len(list), maxContacts)])
	c.list.Store(&list)
	return c, warning
}

// readContacts reads the list at path and sets it aside when it is none.
func readContacts(path string) (list []Contact, warning string) {
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, ""
	}
	if err != nil {
		return nil, fmt.Sprintf("the list of contacts cannot be read: %v", err)
	}
	if list, err = decodeContacts(raw); err != nil {
		aside := fmt.Sprintf("%s.corrupt-%s", path, time.Now().UTC().Format("20060102T150405Z"))
		if renameErr := os.Rename(path, aside); renameErr != nil {
			return nil, fmt.Sprintf("the list of contacts is damaged and cannot be set aside: %v", renameErr)
		}
		return nil, fmt.Sprintf("the list of contacts was damaged (%v); it was set aside as %s and begins anew", err, aside)
	}
	return list, ""
}

// decodeContacts reads the content of contacts.json; what cannot be dialled is left out.
func decodeContacts(raw []byte) (list []Contact, err error) {
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(c Contact) bool { return !c.Addr.IsValid() || c.Addr.Port() == 0 }), nil
}

// Snapshot returns the contacts, the newest first. The slice is shared: nobody changes it.
func (c *Contacts) Snapshot() []Contact { return *c.list.Load() }

// Trouble returns why the last write failed, nil when it did not.
func (c *Contacts) Trouble() error {
	if err := c.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Add puts an address at which a member was reached in front. It never waits for the disk.
func (c *Contacts) Add(id identity.NodeID, addr netip.AddrPort) {
	if c.add(Contact{ID: id, Addr: addr}) {
		c.touch()
	}
}

// add reports whether that changed the list.
func (c *Contacts) add(met Contact) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := *c.list.Load()
	if len(before) > 0 && before[0] == met {
		return false
	}
	list := []Contact{met}
	for _, old := range before {
		if old != met && len(list) < maxContacts {
			list = append(list, old)
		}
	}
	c.list.Store(&list)
	return true
}

// touch asks Run for a write.
func (c *Contacts) touch() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// Run writes the list to disk after each change, until ctx ends: then once more if it has changed since. It returns nil.
func (c *Contacts) Run(ctx context.Context) error {
	var failed error // the last write
	for ctx.Err() == nil {
		select {
		case <-c.dirty:
			pause := contactsEvery
			if failed = c.keep(failed); failed != nil {
				c.touch()
				pause = contactsRetry
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
	}
	select {
	case <-c.dirty:
		c.keep(failed)
	default:
	}
	return nil
}

// keep writes the list as it is now. A failure is logged unless the write before, whose error is given, failed as well.
func (c *Contacts) keep(before error) error {
	raw, err := json.MarshalIndent(c.Snapshot(), "", "  ")
	if err == nil {
		err = c.write(append(raw, '\n'))
	}
	switch {
	case err == nil:
		c.trouble.Store(nil)
		return nil
	case before == nil:
		c.log.Warn("contacts not kept", "error", err)
	}
	c.trouble.Store(&err)
	return err
}
