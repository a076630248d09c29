package main

import (
	"context"
	"fmt"
	"net/netip"

	"warren/mesh/api"
	"warren/mesh/place"
)

// What the commands that change something print with --json, beside those whose result is a type of the API.

// placed is the place that this machine has in a mesh now: create and join.
type placed struct {
	Schema     int          `json:"schema"`
	Mesh       string       `json:"mesh"`
	MeshID     string       `json:"mesh_id"`
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Addresses  []netip.Addr `json:"addresses"`
	StateDir   string       `json:"state_dir"`
	AdmittedBy string       `json:"admitted_by"` // name; "" for the founder
	Running    bool         `json:"running"`     // the service runs its agent
}

// placed ends create and join. What was made is said even when it could not be started.
func (c *console) placed(m place.Membership, running bool) error {
	addrs := []netip.Addr{}
	for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
		if addr.IsValid() {
			addrs = append(addrs, addr)
		}
	}
	return c.done(placed{api.Schema, m.Mesh, m.MeshID.String(), m.ID.String(), m.Name, addrs, m.StateDir, m.AdmittedBy, running})
}

// left is what leave prints.
type left struct {
	Schema int    `json:"schema"`
	Mesh   string `json:"mesh"`
	Told   bool   `json:"told"` // some member has heard of it
}

// brought is what up and down print.
type brought struct {
	Schema   int    `json:"schema"`
	Mesh     string `json:"mesh"`
	Running  bool   `json:"running"`
	Reloaded bool   `json:"reloaded"` // it ran already, and has read its config again
}

// sayOlder tells that the agent is another version than this program, as after an upgrade.
func (c upCommand) sayOlder(ctx context.Context, mesh string) {
	status, err := c.dirs.client(mesh).Status(ctx)
	if err == nil && status.Version != version() && version() != unknownVersion {
		fmt.Fprintf(c.con.err, "note: the agent that runs is version %s, this program %s; to replace it: sudo warren restart%s\n",
			clean(status.Version), version(), c.dirs.meshFlag(mesh))
	}
}
