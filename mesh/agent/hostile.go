//go:build hostile

package agent

import (
	"warren/mesh/hostile"
	"warren/mesh/node"
	"warren/mesh/session"
	"warren/tunnel/bind"
)

// attacker is this process's.
var attacker = hostile.New()

// guise puts the attacker between an agent and its sockets, its sessions, and what would end it, and gives it the agent once that is made.
func guise[T any](o T) T {
	switch o := any(&o).(type) {
	case *bind.Options:
		o.Inner = attacker.Socket(o.Inner)
	case *session.Options:
		o.Members, o.Inbound = attacker.Members(o.Members), attacker.Inbound(o.Inbound)
	case *node.Options:
		o.Feeds.Fatal = nil // it does not go because it is told to
	case **agent:
		if p := (*o).parts; p != nil {
			attacker.Use(hostile.Parts{State: p.state, Records: p.records, Store: p.store, Sessions: p.sessions, Log: (*o).log})
		}
	}
	return o
}
