package api

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Harmless returns JSON, as encoding/json writes it, with a question mark for each character inside its texts that a terminal would not
// print but obey, or that turns the order of a line around: C0 and C1 controls, bidirectional marks, and whatever else
// unicode.IsPrint does not know, line breaks and tabs excepted. Names, versions and reasons are other machines' words, and who reads them
// out of the JSON prints them as they are.
func Harmless(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); {
		c, size := utf8.DecodeRune(body[i:])
		if c == '\\' && i+1 < len(body) {
			c, size = escaped(body[i:])
		}
		if unicode.IsPrint(c) || c == '\n' || c == '\t' {
			out = append(out, body[i:i+size]...)
		} else {
			out = append(out, '?')
		}
		i += size
	}
	return out
}

// escaped reads a character that is escaped, and how long that is.
func escaped(body []byte) (c rune, size int) {
	switch body[1] {
	case 'b', 'f', 'r':
		return 0, 2
	case 'u':
		if len(body) < 6 {
			return 0, len(body)
		}
		code, err := strconv.ParseUint(string(body[2:6]), 16, 16)
		if err != nil {
			return 0, 6
		}
		return rune(code), 6
	}
	return ' ', 2 // a quote, a backslash, a line break or a tab
}
