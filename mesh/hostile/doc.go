// Package hostile is a member that attacks its mesh: what it takes for the tests to see what the others bear. It speaks the
// protocols by the parts of an ordinary agent, and by sockets, certificates and records of its own making where an ordinary agent
// has no way to say what it says.
//
// All of it but this page stands behind the build tag "hostile", so that no program that is given away has any of it; a test of
// cmd/warren/e2e holds that. The program that is built with the tag is the ordinary one until the environment names a
// socket (Variable), at which it is told what to do: see control.go.
//
// An Attacker's methods may be called concurrently.
package hostile
