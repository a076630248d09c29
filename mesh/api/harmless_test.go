package api

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode"
)

// hostile is what a member may put into any text: each kind of character that a terminal obeys, between letters.
const hostile = "a\x00b\x1b[2Jc\rd\be\ff\x7fg\u0085h\u009b1mi\u00adj\u202ek\u2066l\u200bm\u2028n\ufeffo\U000e0041p\\q\"r<s\u00e4t\u4e16u"

const tamed = "a?b?[2Jc?d?e?f?g?h?1mi?j?k?l?m?n?o?p\\q\"r<s\u00e4t\u4e16u"

func TestHarmless(t *testing.T) {
	body, err := json.Marshal(map[string]string{hostile: hostile, "lines": "one\ntwo\tthree"})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(Harmless(body), &got); err != nil {
		t.Fatalf("not JSON any more: %v", err)
	}
	if got[tamed] != tamed || got["lines"] != "one\ntwo\tthree" || len(got) != 2 {
		t.Errorf("got %q, want %q", got, tamed)
	}
	for _, part := range []string{`"\u0`, `\u`, `\`, "\xff", `\uzzzz`} {
		Harmless([]byte(part)) // must not panic
	}
}

// Whatever the agent answers, no control character of others comes through: in a status, in a line of a stream, in an error.
func TestNoControlCharactersInAnswers(t *testing.T) {
	no := &Error{Code: CodeRefused, Message: hostile, Hint: hostile}
	status := Status{
		Version: hostile, Warnings: []string{hostile}, Peers: []Peer{{Name: hostile, Version: hostile, Reason: hostile, Tags: []string{hostile}, Path: Path{Via: hostile}}},
		Revoked: []Revoked{{Name: hostile, Reason: hostile, By: hostile}}, Mesh: &Mesh{Name: hostile}, Dropped: map[string]uint64{hostile: 1},
	}
	backend := &fakeBackend{status: status, why: Why{Peer: Peer{Name: hostile}}, pings: []PingReply{{Name: hostile, Error: hostile}}, confirm: []Confirmation{{Target: hostile, Member: hostile}}}
	routes := NewServer(backend, slog.New(slog.DiscardHandler)).routes()
	refusing := NewServer(&fakeBackend{err: no}, slog.New(slog.DiscardHandler)).routes()
	cut := NewServer(&fakeBackend{err: errors.New(hostile), pings: backend.pings}, slog.New(slog.DiscardHandler)).routes()
	const ping = `{"peer":"a","count":1,"interval_ms":1000,"timeout_ms":1000}`
	for name, answer := range map[string]func() string{
		"status":      func() string { return request(routes, "GET", "/v1/status", "").Body.String() },
		"why":         func() string { return request(routes, "POST", "/v1/why", `{"peer":"a"}`).Body.String() },
		"a stream":    func() string { return request(routes, "POST", "/v1/ping", ping).Body.String() },
		"an error":    func() string { return request(refusing, "POST", "/v1/ping", ping).Body.String() },
		"a late one":  func() string { return request(cut, "POST", "/v1/ping", ping).Body.String() },
		"a wrong URL": func() string { return request(routes, "GET", "/v1/%1b%5B2J%C2%9B%E2%80%AE", "").Body.String() },
	} {
		text := answer()
		if !strings.Contains(text, "?") {
			t.Errorf("%s: got %q, want the hostile text in it, made harmless", name, text)
		}
		for d := json.NewDecoder(strings.NewReader(text)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			said, _ := token.(string)
			for _, c := range said {
				if !unicode.IsPrint(c) {
					t.Errorf("%s: got %q with %U, want no such character", name, said, c)
				}
			}
		}
	}
}
