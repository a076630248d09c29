// Package path decides, for one peer, when to signal, when to try ICE, when to open a relay, which
// working way to use, and when that way is dead. It also defines the messages of an introduction
// and their encoding.
//
// It is a pure state machine: Step takes the time and one input and returns what to do and when to
// be woken. Sockets, ICE agents, relay channels and the clock belong to package nat; sealing and
// carrying messages to mesh/signal and mesh/session.
//
// Files in the order of an introduction: machine.go (the step, and the news between the parts), introduction.go (from the
// offer to the attempt; its parts are signalling.go, attempt.go with predict.go, and ladder.go, which says when to try again),
// choice.go (which relay to agree on), route.go (which way to use; its parts are current.go with life.go and checks.go, the
// watch over the path in use, sources.go, and relay.go with spare.go), wishes.go (which better relay to ask for). The parts of
// each do not know each other: introduction and route compose them.
//
// A Machine has one owner and is not safe for concurrent use.
package path
