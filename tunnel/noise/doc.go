// Package noise is WireGuard's protocol.
package noise
