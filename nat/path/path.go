// Package path decides how a peer is reached.
package path
