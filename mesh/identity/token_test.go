package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
)

func testToken(anchors ...string) Token {
	t := Token{}
	for i := range t.Mesh {
		t.Mesh[i] = byte(i)
	}
	for i := range t.Seed {
		t.Seed[i] = byte(200 - 3*i)
	}
	for _, anchor := range anchors {
		addr, id, _ := strings.Cut(anchor, " ")
		if name, port, ok := strings.Cut(addr, ":"); ok && strings.Trim(name, "0123456789.") != "" && addr[0] != '[' {
			at := netip.MustParseAddrPort("0.0.0.0:" + port)
			t.Anchors = append(t.Anchors, TokenAnchor{Addr: netip.AddrPortFrom(netip.Addr{}, at.Port()), ID: [8]byte([]byte(id + "--------")[:8]), Name: name})
			continue
		}
		t.Anchors = append(t.Anchors, TokenAnchor{Addr: netip.MustParseAddrPort(addr), ID: [8]byte([]byte(id + "--------")[:8])})
	}
	return t
}

func TestTokenRoundTrip(t *testing.T) {
	tests := []struct {
		name    string
		anchors []string
		want    int // anchors that fit
	}{
		{"no anchor", nil, 0},
		{"one", []string{"192.0.2.1:9277 a"}, 1},
		{"four IPv4", []string{"192.0.2.1:9277 a", "192.0.2.2:9277 b", "192.0.2.3:1 c", "192.0.2.4:65535 d"}, 4},
		{"five", []string{"192.0.2.1:9277 a", "192.0.2.2:9277 b", "192.0.2.3:1 c", "192.0.2.4:65535 d", "192.0.2.5:1 e"}, 4},
		{"dual stack and two", []string{"192.0.2.1:9277 a", "[2001:db8::1]:9277 a", "192.0.2.3:1 c", "192.0.2.4:65535 d"}, 4},
		{"two IPv6", []string{"[2001:db8::1]:9277 a", "[2001:db8::2]:9277 b"}, 2},
		{"two IPv6 and two, one dropped", []string{"[2001:db8::1]:9277 a", "[2001:db8::2]:9277 b", "192.0.2.3:1 c", "192.0.2.4:2 b"}, 3},
		{"a name", []string{"vpn.example.org:9277 a"}, 1},
		{"a name of one label", []string{"nas:9277 a"}, 1},
		{"a name and its addresses", []string{"my-home_2.dyn.example.org:443 a", "192.0.2.1:443 a", "[2001:db8::1]:443 a"}, 3},
		{"a name and others", []string{"vpn.example.org:9277 a", "192.0.2.1:9277 b", "192.0.2.2:9277 c"}, 3},
		{"a name that is too long", []string{strings.Repeat("longer.", 12) + "example.org:9277 a", "192.0.2.1:9277 a"}, 1},
		{"what is no name", []string{"a..b:9277 a", "a$b:9277 a", "192.0.2.1:9277 a"}, 1},
		{"unreachable", []string{"0.0.0.0:9277 a", "192.0.2.1:0 b", "224.0.0.1:1 c"}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			token := testToken(test.anchors...)
			text := token.Encode()
			if len(text) > MaxToken || !strings.HasPrefix(text, "warren1") {
				t.Fatalf("got %q of %d characters, want warren1 and at most %d", text, len(text), MaxToken)
			}
			got, err := ParseToken(text)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Anchors) != test.want {
				t.Fatalf("got %d anchors, want %d", len(got.Anchors), test.want)
			}
			if got.Mesh != token.Mesh || got.Seed != token.Seed {
				t.Fatalf("mesh or seed changed")
			}
			if again := got.Encode(); again != text {
				t.Errorf("encoded again: got %q, want %q", again, text)
			}
			if test.want == len(token.Anchors) && test.want > 0 && !reflect.DeepEqual(got, token) {
				t.Errorf("got %#v, want %#v", got.Anchors, token.Anchors)
			}
		})
	}
}

func TestTokenDamage(t *testing.T) {
	token := testToken("192.0.2.1:9277 a", "[2001:db8::1]:9277 a", "192.0.2.3:1 c", "192.0.2.4:65535 d")
	text := token.Encode()
	other := func(c byte) byte { return symbolAlphabet[(strings.IndexByte(symbolAlphabet, c)+7)%64] }
	replace := func(at int, c byte) string { return text[:at] + string(c) + text[at+1:] }
	for at := range text {
		_, err := ParseToken(text[:at])
		want := ErrTokenTruncated
		if at == 0 {
			want = ErrTokenNotWarren
		}
		if !errors.Is(err, want) {
			t.Errorf("first %d characters: got %v, want %v", at, err, want)
		}
		if at < tokenStart+headSymbols {
			continue // the head decides the length
		}
		_, err = ParseToken(replace(at, other(text[at])))
		if want := fmt.Sprintf("character %d looks wrong: token is mistyped", at+1); err == nil || err.Error() != want {
			t.Errorf("character %d replaced: got %v, want %s", at+1, err, want)
		}
		if at+1 < len(text) && text[at] != text[at+1] {
			swapped := text[:at] + string(text[at+1]) + string(text[at]) + text[at+2:]
			_, err = ParseToken(swapped)
			if want := fmt.Sprintf("characters %d and %d look wrong: token is mistyped", at+1, at+2); err == nil || err.Error() != want {
				t.Errorf("characters %d and %d swapped: got %v, want %s", at+1, at+2, err, want)
			}
		}
	}
	for at := tokenStart; at < tokenStart+headSymbols; at++ {
		if _, err := ParseToken(replace(at, other(text[at]))); err == nil {
			t.Errorf("character %d of the head replaced: no error", at+1)
		}
	}
	tests := []struct {
		text string
		want error
	}{
		{"", ErrTokenNotWarren},
		{"   \n", ErrTokenNotWarren},
		{"hello", ErrTokenNotWarren},
		{"tskey-auth-kXyz", ErrTokenNotWarren},
		{"warrenx" + text[7:], ErrTokenNotWarren},
		{"warren2" + text[7:], ErrTokenVersion},
		{"warr", ErrTokenTruncated},
		{text + "A", ErrTokenMistyped},
		{strings.ToLower(text), ErrTokenMistyped},
		{replace(50, '!'), ErrTokenMistyped},
		{replace(50, 0xff), ErrTokenMistyped},
		{strings.Repeat("warren1", 3000), ErrTokenNotWarren},
	}
	for _, test := range tests {
		if _, err := ParseToken(test.text); !errors.Is(err, test.want) {
			t.Errorf("%.20q: got %v, want %v", test.text, err, test.want)
		}
	}
}

func TestTokenRandomDamageNeverPasses(t *testing.T) {
	for _, anchors := range [][]string{{"192.0.2.1:9277 a", "192.0.2.3:1 c"}, {"vpn.example.org:9277 a", "192.0.2.3:1 a"}} {
		randomDamage(t, testToken(anchors...).Encode())
	}
}

func randomDamage(t *testing.T, text string) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		damaged := []byte(text)
		for range 2 + random.IntN(10) {
			damaged[tokenStart+random.IntN(len(damaged)-tokenStart)] = symbolAlphabet[random.IntN(64)]
		}
		if _, err := ParseToken(string(damaged)); err == nil && string(damaged) != text {
			t.Fatalf("damaged token passed: %s", damaged)
		}
	}
}

func TestTokenPasted(t *testing.T) {
	want := testToken("192.0.2.1:9277 a")
	text := want.Encode()
	wide := func(order binary.AppendByteOrder, mark bool, text string) string {
		var out []byte
		if mark {
			text = "\ufeff" + text
		}
		for _, unit := range utf16.Encode([]rune(text)) {
			out = order.AppendUint16(out, unit)
		}
		return string(out)
	}
	for _, pasted := range []string{
		" " + text + "\r\n", text[:40] + "\n  " + text[40:90] + "\u200b\n" + text[90:], "\"" + text + "\"", "`" + text + "`", "Warren1" + text[7:],
		"\ufeff" + text, "“" + text + "”", "‘" + text + "’", "«" + text + "»", text + ".", text + ",\n", "(" + text + ")", "<" + text + ">", text + "\x00",
		"TOKEN=" + text, "export WARREN_TOKEN='" + text + "'", "token: " + text, "sudo warren join " + text, "_" + text + "_", "**" + text + "**", text + "--",
		`{"schema":2,"token":"` + text + `","uses":1,"anchors":["192.0.2.1:9277"]}`,
		"Hi, this is for you:\n\n> " + text[:60] + "\n> " + text[60:] + "\n\nIt lets you join warren1 home. See you!",
		"join warren with " + text + " and then ping me", text + "\n" + text,
		"\x1b[1;32m" + text + "\x1b[0m", text[:30] + "\x1b[7m" + text[30:] + "\x1b[m", "\x1b]8;;https://example.net/\x07" + text + "\x1b]8;;\x1b\\",
		wide(binary.LittleEndian, true, text+"\r\n"), wide(binary.BigEndian, true, text), wide(binary.LittleEndian, false, text), wide(binary.BigEndian, false, text),
	} {
		if got, err := ParseToken(pasted); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v and error %v, want the token", pasted, got, err)
		}
	}
	other := testToken("192.0.2.9:9277 b").Encode()
	for _, c := range []struct {
		text string
		want error
	}{
		{text + " or " + other, ErrTokenSeveral}, {text + "and", ErrTokenMistyped}, {"join with warren1", ErrTokenTruncated},
		{"https://example.net/warren", ErrTokenNotWarren}, {strings.Repeat(" ", MaxTokenText) + text, ErrTokenNotWarren},
		{"token " + text[:50], ErrTokenTruncated}, {wide(binary.LittleEndian, true, text[:50]), ErrTokenTruncated},
	} {
		if _, err := ParseToken(c.text); !errors.Is(err, c.want) {
			t.Errorf("%.40q: got %v, want %v", c.text, err, c.want)
		}
	}
}

func TestTokenIsHidden(t *testing.T) {
	token := testToken("192.0.2.1:9277 a")
	text := token.Encode()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("token", "token", token, "pointer", &token)
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s", token, token, token, &token)
	if strings.Contains(shown, text[60:80]) || strings.Contains(shown, "200 197") || strings.Contains(shown, "0xc8, 0xc5") {
		t.Errorf("secret shown: %s", shown)
	}
}

// A name is looked for in a text as any token is, and what of it is lost is said.
func TestTokenWithName(t *testing.T) {
	want := testToken("vpn.example.org:9277 a", "192.0.2.1:9277 a")
	text := want.Encode()
	for _, pasted := range []string{text, "TOKEN=" + text, text[:9] + "\n> " + text[9:], "join with " + text + ", please"} {
		if got, err := ParseToken(pasted); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v and error %v, want the token", pasted, got.Anchors, err)
		}
	}
	for at := 1; at < len(text); at++ {
		if _, err := ParseToken(text[:at]); !errors.Is(err, ErrTokenTruncated) {
			t.Errorf("first %d characters: got %v, want %v", at, err, ErrTokenTruncated)
		}
	}
	if upper := testToken("VPN.Example.org:9277 a").Encode(); upper != testToken("vpn.example.org:9277 a").Encode() {
		t.Error("capitals in a name make another token")
	}
	if got := want.Anchors[0].String() + " " + want.Anchors[1].String(); got != "vpn.example.org:9277 192.0.2.1:9277" {
		t.Errorf("got %s", got)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(testToken("vpn.example.org:9277 a", "192.0.2.1:9277 a").Encode())
	f.Add(testToken().Encode())
	f.Add(testToken("192.0.2.1:9277 a", "[2001:db8::1]:9277 a", "192.0.2.3:1 c", "192.0.2.4:65535 d").Encode())
	f.Add("warren1")
	f.Add("warren2AA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil {
			again, err := ParseToken(token.Encode())
			if err != nil || !reflect.DeepEqual(again, token) {
				t.Fatalf("got %v and %v, want %v", again, err, token)
			}
			return
		}
		count := 0
		for _, class := range []error{ErrTokenMistyped, ErrTokenNotWarren, ErrTokenTruncated, ErrTokenVersion, ErrTokenSeveral} {
			if errors.Is(err, class) {
				count++
			}
		}
		if count != 1 {
			t.Fatalf("%v is of %d classes, want one", err, count)
		}
	})
}
