package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"warren/mesh/identity"
)

// fileContacts is the list of contacts in the state directory. It stands beside the store, so that a node whose store
// is lost still finds the others.
const fileContacts = "contacts.json"

// maxContacts bounds the list: the newest addresses are the likeliest.
const maxContacts = 32

// contact is an address at which a member was reached once.
type contact struct {
	ID   identity.NodeID `json:"id"`
	Addr netip.AddrPort  `json:"addr"`
}

// remember keeps an address at which a member was reached, for a start when no anchor answers. The newest come first.
func (m *member) remember(c contact) {
	if len(m.contacts) > 0 && m.contacts[0] == c {
		return
	}
	m.contacts = slices.DeleteFunc(m.contacts, func(old contact) bool { return old == c })
	m.contacts = slices.Insert(m.contacts, 0, c)
	m.contacts = m.contacts[:min(len(m.contacts), maxContacts)]
	raw, err := json.MarshalIndent(m.contacts, "", "  ")
	if err == nil {
		err = identity.WriteFileAtomic(filepath.Join(m.state.dir, fileContacts), append(raw, '\n'), 0o600)
	}
	if err != nil {
		m.log.Warn("contact not kept", "error", err)
	}
}

// loadContacts reads the contacts of earlier runs, and where this node was admitted. A damaged list is set aside: the
// text of the warning says so, and nothing else is lost with it.
func loadContacts(st *state, now time.Time) (out []contact, warning string) {
	path := filepath.Join(st.dir, fileContacts)
	raw, err := os.ReadFile(path)
	if err == nil {
		if err = json.Unmarshal(raw, &out); err != nil {
			out = nil
			aside := fmt.Sprintf("%s.corrupt-%s", path, now.UTC().Format("20060102T150405Z"))
			warning = fmt.Sprintf("the list of contacts was damaged (%v); it was set aside as %s and begins anew", err, aside)
			if err := os.Rename(path, aside); err != nil {
				warning = fmt.Sprintf("the list of contacts is damaged and cannot be set aside: %v", err)
			}
		}
	} else if !os.IsNotExist(err) {
		warning = fmt.Sprintf("the list of contacts cannot be read: %v", err)
	}
	for _, addr := range st.settings.Contacts {
		if c := (contact{ID: st.settings.Admitter, Addr: addr}); !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out[:min(len(out), maxContacts)], warning
}
