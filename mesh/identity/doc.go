// Package identity holds what the members of a mesh are known by: Ed25519 keys and their IDs, the X.509 certificates that
// make a key a root, an invite, an admin or a member, overlay addresses, which follow from IDs, and tokens.
//
// It judges one certificate by its form, and one step of a chain. Whether a node is a member also depends on
// admissions, uses and revocations, and is left to package roster; handshakes are left to package session.
//
// Everything here is a value or a function, safe for concurrent use.
package identity
