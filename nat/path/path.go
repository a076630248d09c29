// Package path decides, for one peer, when to signal, when to try ICE, when to open a relay, which
// working way to use, and when that way is dead. It also defines the messages of an introduction
// and their encoding.
//
// It is a pure state machine: Step takes the time and one input and returns what to do and when to
// be woken. Sockets, ICE agents, relay channels and the clock belong to package nat; sealing and
// carrying messages to mesh/signal and mesh/session.
//
// A Machine has one owner and is not safe for concurrent use.
package path
