package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// MaxToken is the length of the longest token in characters.
const MaxToken = 160

// maxTokenAnchors bounds the anchors of a token.
const maxTokenAnchors = 4

const (
	tokenPrefix  = "warren"
	tokenVersion = '1'
	tokenStart   = len(tokenPrefix) + 1 // where the symbols begin
	tokenFixed   = len(MeshID{}) + 32   // bytes before the anchors
	headSymbols  = 2
)

// What can be wrong with a token. ParseToken wraps exactly one of them.
var (
	ErrTokenTruncated = errors.New("token is cut short")
	ErrTokenMistyped  = errors.New("token is mistyped")
	ErrTokenNotWarren = errors.New("not a warren token")
	ErrTokenVersion   = errors.New("token is of an unknown version")
	ErrTokenSeveral   = errors.New("want one token")
)

// TokenAnchor is a member that a joiner can reach, and the start of its node ID to pin it.
type TokenAnchor struct {
	Addr netip.AddrPort // where Name is given, its port only
	ID   [8]byte
	Name string // in place of an address: a DNS name that the joiner looks up; empty: none
}

// String returns host:port.
func (a TokenAnchor) String() string {
	if a.Name != "" {
		return net.JoinHostPort(a.Name, strconv.Itoa(int(a.Addr.Port())))
	}
	return a.Addr.String()
}

// Token is what a joiner is given: who holds it can join the mesh. Its text is
//
//	"warren" version head payload check
//
// The version is "1". The rest is in symbols of six bits, written in the alphabet of base64url (RFC 4648, section 5). The head
// is two symbols: three bits of anchor count, then for each of four anchors one bit for IPv6 and one for "same ID as the
// anchor before", then one for a name; so the length is known from the start. With a name a third symbol follows, which says how
// many times three bytes the name has. The payload is mesh ID (16 bytes), seed (32 bytes), of the name its node's ID (8), port (2) and
// text, and for each anchor its ID (8 bytes, unless the same), address (4 or 16) and port (2, big-endian). A name stands before the
// anchors. Its letters, digits, hyphens and underscores are symbols, a dot is A, and B fills up. The check is described at checkSymbols.
type Token struct {
	Mesh    MeshID
	Seed    [32]byte // of the invite's key: whoever has it has the invite
	Anchors []TokenAnchor
}

// Encode returns the token's text of at most MaxToken characters. Anchors count in the order given: those that do not fit are left out, as are those
// beyond the fourth and addresses that nobody could reach. Four fit when they have IPv4 addresses, or
// when one is the IPv6 address of the node just before it. One that is a name comes first, wherever it stands, and no other name is kept.
func (t Token) Encode() string {
	payload := append(t.Mesh[:], t.Seed[:]...)
	head, count := 0, 0
	var last [8]byte
	var named []byte // the third symbol
	for _, anchor := range t.Anchors {
		name := packName(anchor.Name)
		if name == nil || anchor.Addr.Port() == 0 || tokenLength(len(payload)+10+len(name))+1 > MaxToken {
			continue
		}
		payload = append(payload, anchor.ID[:]...)
		payload = binary.BigEndian.AppendUint16(payload, anchor.Addr.Port())
		payload = append(payload, name...)
		last, named = anchor.ID, []byte{byte(len(name) / 3)}
		break
	}
	for _, anchor := range t.Anchors {
		if anchor.Name != "" {
			continue
		}
		anchor.Addr = netip.AddrPortFrom(anchor.Addr.Addr().Unmap(), anchor.Addr.Port())
		if count == maxTokenAnchors || !IsReachable(anchor.Addr) {
			continue
		}
		same := (count > 0 || named != nil) && anchor.ID == last
		encoded := anchor.encode(same)
		if tokenLength(len(payload)+len(encoded))+len(named) > MaxToken {
			continue
		}
		head |= anchorBits(anchor.Addr.Addr().Is6(), same) << (2 * count)
		payload = append(payload, encoded...)
		last = anchor.ID
		count++
	}
	head |= count << 8
	symbols := append([]byte{byte(head >> 5 & 63), byte(head<<1&63 | len(named))}, named...)
	symbols = append(symbols, toSymbols(payload)...)
	symbols = append(symbols, checkSymbols(symbols)...)
	text := []byte(tokenPrefix)
	text = append(text, tokenVersion)
	for _, symbol := range symbols {
		text = append(text, symbolAlphabet[symbol])
	}
	return string(text)
}

// ParseToken reads the token in a text: a token as it was made, or what people and programs put around it and into it (see
// readable). The error wraps one of the ErrToken values and says where the damage is as far as that can be known; positions count
// from 1 and leave out spaces. It never quotes the token.
func ParseToken(text string) (Token, error) {
	if len(text) > MaxTokenText {
		return Token{}, fmt.Errorf("%d characters, at most %d: %w", len(text), MaxTokenText, ErrTokenNotWarren)
	}
	text = readable(text)
	if found, err := findToken(text); !errors.Is(err, ErrTokenNotWarren) {
		return found, err
	}
	return parseToken(beginning(text))
}

// parseToken reads a text that is nothing but a token.
func parseToken(text string) (Token, error) {
	text, _ = squeeze(text)
	text = strings.Trim(text, "\"'`<>")
	rest, err := cutTokenPrefix(text)
	if err != nil {
		return Token{}, err
	}
	symbols := make([]byte, len(rest))
	for i := range rest {
		symbol := strings.IndexByte(symbolAlphabet, rest[i])
		if symbol < 0 {
			return Token{}, fmt.Errorf("character %d cannot occur in a token: %w", tokenStart+i+1, ErrTokenMistyped)
		}
		symbols[i] = byte(symbol)
	}
	if len(symbols) < headSymbols {
		return Token{}, fmt.Errorf("it has %d characters: %w", len(text), ErrTokenTruncated)
	}
	shape, err := parseTokenHead(symbols)
	if err != nil {
		return Token{}, err
	}
	want := shape.length()
	switch {
	case len(text) < want:
		return Token{}, fmt.Errorf("it has %d of %d characters: %w", len(text), want, ErrTokenTruncated)
	case len(text) > want:
		return Token{}, fmt.Errorf("it has %d characters, %d too many: %w", len(text), len(text)-want, ErrTokenMistyped)
	}
	if err := findMistyped(symbols); err != nil {
		return Token{}, err
	}
	payload, ok := fromSymbols(symbols[shape.head() : len(symbols)-checkSize])
	if !ok {
		return Token{}, fmt.Errorf("its last bits are not zero: %w", ErrTokenMistyped)
	}
	return shape.decode(payload)
}

// String hides the token's secret; the text is got by Encode only.
func (t Token) String() string {
	return fmt.Sprintf("warren token for mesh %s (secret hidden)", t.Mesh)
}

// GoString hides the token's secret as String does.
func (t Token) GoString() string { return t.String() }

// LogValue hides the token's secret in logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// tokenShape is what the head of a token tells.
type tokenShape struct {
	name    int // its bytes; 0: none
	anchors []struct{ is6, same bool }
	size    int // of the payload in bytes
}

// head returns the symbols of the head.
func (s tokenShape) head() int {
	if s.name > 0 {
		return headSymbols + 1
	}
	return headSymbols
}

// length returns the characters of the whole token.
func (s tokenShape) length() int { return tokenLength(s.size) + s.head() - headSymbols }

func parseTokenHead(symbols []byte) (tokenShape, error) {
	head := int(symbols[0])<<5 | int(symbols[1])>>1
	count, bits := head>>8, head&0xff
	shape := tokenShape{size: tokenFixed}
	damaged := fmt.Errorf("character %d or %d is wrong: %w", tokenStart+1, tokenStart+2, ErrTokenMistyped)
	if count > maxTokenAnchors || bits>>(2*count) != 0 {
		return shape, damaged
	}
	if symbols[1]&1 != 0 {
		if len(symbols) <= headSymbols {
			return shape, fmt.Errorf("it has %d characters: %w", tokenStart+len(symbols), ErrTokenTruncated)
		}
		shape.name = 3 * int(symbols[headSymbols])
		shape.size += 10 + shape.name
	}
	if symbols[1]&1 != 0 && shape.name == 0 {
		return shape, fmt.Errorf("character %d is wrong: %w", tokenStart+headSymbols+1, ErrTokenMistyped)
	}
	for i := range count {
		is6, same := bits>>(2*i)&1 != 0, bits>>(2*i)&2 != 0
		if same && i == 0 && shape.name == 0 {
			return shape, damaged
		}
		shape.anchors = append(shape.anchors, struct{ is6, same bool }{is6, same})
		shape.size += anchorSize(is6, same)
	}
	if shape.length() > MaxToken {
		return shape, damaged
	}
	return shape, nil
}

func (s tokenShape) decode(payload []byte) (Token, error) {
	t := Token{Mesh: MeshID(payload[:16]), Seed: [32]byte(payload[16:tokenFixed])}
	payload = payload[tokenFixed:]
	if s.name > 0 {
		anchor := TokenAnchor{ID: [8]byte(payload[:8]), Addr: netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(payload[8:]))}
		if anchor.Name = unpackName(payload[10 : 10+s.name]); anchor.Name == "" || anchor.Addr.Port() == 0 {
			return Token{}, fmt.Errorf("its name makes no sense: %w", ErrTokenMistyped)
		}
		t.Anchors, payload = append(t.Anchors, anchor), payload[10+s.name:]
	}
	for i, shape := range s.anchors {
		var anchor TokenAnchor
		before := len(t.Anchors) - 1
		if shape.same {
			anchor.ID = t.Anchors[before].ID
		} else {
			anchor.ID, payload = [8]byte(payload[:8]), payload[8:]
		}
		size := addrSize(shape.is6)
		addr, _ := netip.AddrFromSlice(payload[:size])
		anchor.Addr = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(payload[size:]))
		payload = payload[size+2:]
		if !IsReachable(anchor.Addr) || !shape.same && before >= 0 && anchor.ID == t.Anchors[before].ID {
			return Token{}, fmt.Errorf("its anchor %d makes no sense: %w", i+1, ErrTokenMistyped)
		}
		t.Anchors = append(t.Anchors, anchor)
	}
	return t, nil
}

func (a TokenAnchor) encode(same bool) []byte {
	var out bytes.Buffer
	if !same {
		out.Write(a.ID[:])
	}
	out.Write(a.Addr.Addr().AsSlice())
	return binary.BigEndian.AppendUint16(out.Bytes(), a.Addr.Port())
}

func anchorBits(is6, same bool) int {
	bits := 0
	if is6 {
		bits |= 1
	}
	if same {
		bits |= 2
	}
	return bits
}

func anchorSize(is6, same bool) int {
	if same {
		return addrSize(is6) + 2
	}
	return addrSize(is6) + 2 + 8
}

func addrSize(is6 bool) int {
	if is6 {
		return 16
	}
	return 4
}

// tokenLength returns the characters of a token with a payload of so many bytes.
func tokenLength(payload int) int {
	return tokenStart + headSymbols + base64.RawURLEncoding.EncodedLen(payload) + checkSize
}

// cutTokenPrefix returns what follows the prefix and the version.
func cutTokenPrefix(text string) (string, error) {
	if len(text) < tokenStart {
		if text != "" && strings.EqualFold(text, tokenPrefix[:min(len(text), len(tokenPrefix))]) {
			return "", fmt.Errorf("it has %d characters: %w", len(text), ErrTokenTruncated)
		}
		return "", fmt.Errorf("want text that starts with %s%c: %w", tokenPrefix, tokenVersion, ErrTokenNotWarren)
	}
	version := text[tokenStart-1]
	switch {
	case !strings.EqualFold(text[:len(tokenPrefix)], tokenPrefix) || version < '0' || version > '9':
		return "", fmt.Errorf("want text that starts with %s%c: %w", tokenPrefix, tokenVersion, ErrTokenNotWarren)
	case version != tokenVersion:
		return "", fmt.Errorf("version %c, this program reads version %c: %w", version, tokenVersion, ErrTokenVersion)
	}
	return text[tokenStart:], nil
}

func toSymbols(payload []byte) []byte {
	symbols := []byte(base64.RawURLEncoding.EncodeToString(payload))
	for i, c := range symbols {
		symbols[i] = byte(strings.IndexByte(symbolAlphabet, c))
	}
	return symbols
}

// fromSymbols is the reverse of toSymbols; it fails when the bits that no byte needs are not zero.
func fromSymbols(symbols []byte) ([]byte, bool) {
	text := make([]byte, len(symbols))
	for i, symbol := range symbols {
		text[i] = symbolAlphabet[symbol]
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	return payload, err == nil
}
