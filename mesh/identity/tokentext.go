package identity

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
)

// MaxTokenText bounds the text in which a token is looked for, in bytes: a message, or the JSON of an invite.
const MaxTokenText = 16 << 10

/* What happens to tokens on their way
 *
 *	a shell's redirection on Windows            UTF-16 with a byte order mark
 *	a terminal, a chat, a mail                  colours, hyperlinks, soft hyphens, line breaks, > before each line, smart quotes
 *	a sentence, a list, a script                words before and after, a full stop, TOKEN=, {"token": …}
 *
 * The head of a token tells its length, and its check tells whether it is one. So it is looked for at each place where one may begin.
 */

// escape matches what makes a terminal show colours and links (ECMA-48: CSI, OSC and two-character sequences).
var escape = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[@-Z\\\\^_])")

// readable turns a text as it was found into one that can be searched: UTF-8, without what only steers terminals, and without
// characters that cannot be seen.
func readable(text string) string {
	if order := byteOrder(text); order != nil {
		units := make([]uint16, len(text)/2)
		for i := range units {
			units[i] = order.Uint16([]byte(text[2*i:]))
		}
		text = string(utf16.Decode(units))
	}
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) || r == 0 {
			return -1
		}
		return r
	}, escape.ReplaceAllString(text, ""))
}

// byteOrder returns that of a text in UTF-16, nil for any other. Without a mark the zeros of ASCII tell.
func byteOrder(text string) binary.ByteOrder {
	switch {
	case len(text) < 4:
	case strings.HasPrefix(text, "\xff\xfe"), text[1] == 0 && text[3] == 0 && text[0] != 0:
		return binary.LittleEndian
	case strings.HasPrefix(text, "\xfe\xff"), text[0] == 0 && text[2] == 0 && text[1] != 0:
		return binary.BigEndian
	}
	return nil
}

// tokenBegins matches what a token of any version begins with.
var tokenBegins = regexp.MustCompile(`(?i)` + tokenPrefix + `[0-9]`)

// beginning returns a text from where a token seems to begin, to say what is wrong with that; all of it if none does.
func beginning(text string) string {
	if at := tokenBegins.FindStringIndex(text); at != nil {
		return text[at[0]:]
	}
	return text
}

// findToken returns the token in a readable text. The error wraps ErrTokenNotWarren when there is none.
func findToken(text string) (found Token, err error) {
	compact, gaps := squeeze(text)
	first := ""
	for at := range compact {
		token, ok := tokenAt(compact, at, gaps)
		if !ok {
			continue
		}
		if encoded := token.Encode(); first == "" {
			found, first = token, encoded
		} else if encoded != first {
			of := "of one mesh"
			if token.Mesh != found.Mesh {
				of = "of different meshes"
			}
			return Token{}, fmt.Errorf("this text holds two tokens, %s: %w", of, ErrTokenSeveral)
		}
	}
	if first == "" {
		return Token{}, ErrTokenNotWarren
	}
	return found, nil
}

// squeeze takes white space, and marks of quoted lines, out of a text. gaps are the places of the result before which there was any.
func squeeze(text string) (compact string, gaps map[int]bool) {
	var out strings.Builder
	gaps = make(map[int]bool)
	lineBegins := true
	for _, r := range text {
		switch {
		case r == '\n' || r == '\r':
			lineBegins = true
			gaps[out.Len()] = true
		case unicode.IsSpace(r), lineBegins && (r == '>' || r == '|'):
			gaps[out.Len()] = true
		default:
			lineBegins = false
			out.WriteRune(r)
		}
	}
	return out.String(), gaps
}

// tokenAt reads the token that begins at a place of a squeezed text. What follows it has to be something else: more of the same
// would be a token with characters too many, but for hyphens and underscores, which are marks of emphasis, too.
func tokenAt(compact string, at int, gaps map[int]bool) (Token, bool) {
	rest := compact[at:]
	if len(rest) < tokenStart+headSymbols || !strings.EqualFold(rest[:len(tokenPrefix)], tokenPrefix) || rest[tokenStart-1] != tokenVersion {
		return Token{}, false
	}
	head := make([]byte, min(headSymbols+1, len(rest)-tokenStart))
	for i := range head {
		symbol := strings.IndexByte(symbolAlphabet, rest[tokenStart+i])
		if symbol < 0 && i < headSymbols {
			return Token{}, false
		}
		head[i] = byte(max(symbol, 0))
	}
	shape, err := parseTokenHead(head)
	if err != nil {
		return Token{}, false
	}
	end := shape.length()
	if end > len(rest) {
		return Token{}, false
	}
	if after := strings.TrimLeft(rest[end:], "-_"); len(after) == len(rest)-end && after != "" && !gaps[at+end] && strings.IndexByte(symbolAlphabet, after[0]) >= 0 {
		return Token{}, false
	}
	token, err := parseToken(rest[:end])
	return token, err == nil
}
