package identity

import (
	"errors"
	"net/netip"
)

// TokenAnchor is a member that a joiner can reach.
type TokenAnchor struct {
	Addr netip.AddrPort
	ID   [8]byte // the start of its node ID, to pin it
}

// Token is what an invite comes down to on paper: it lets its holder join.
type Token struct {
	Mesh    MeshID
	Seed    [32]byte // of the invite key; secret
	Anchors []TokenAnchor
}

// What can be wrong with a token; each has its own remedy.
var (
	ErrTokenTruncated = errors.New("token is cut short")
	ErrTokenMistyped  = errors.New("token is mistyped")
	ErrTokenNotWarren = errors.New("not a warren token")
	ErrTokenVersion   = errors.New("token is of an unknown version")
)

// Encode returns the token's text.
func (t Token) Encode() string { return "" }

// ParseToken reads a token's text.
func ParseToken(text string) (Token, error) { return Token{}, ErrTokenNotWarren }
