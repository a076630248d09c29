package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"warren/mesh/place"
)

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 3 << 20: "3.0 MiB", 1 << 60: "1024.0 PiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d): got %q, want %q", n, got, want)
		}
	}
	for ms, want := range map[float64]string{0: "", 0.034: "0.03ms", 1: "1.0ms", 9.96: "10.0ms", 12.4: "12ms"} {
		if got := latency(ms); got != want {
			t.Errorf("latency(%v): got %q, want %q", ms, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 25 * time.Hour: "1d1h", 90 * time.Minute: "1h30m",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v): got %q, want %q", d, got, want)
		}
	}
}

func TestParseLife(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour,
		"": 0, "0s": 0, "-1h": 0, "7": 0, "d": 0, "-1d": 0, "99999d": 0, "1000000h": 0,
	} {
		got, err := parseLife(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("parseLife(%q): got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for host, want := range map[string]string{
		"Laptop.local": "laptop", "my_box": "my-box", "-x-": "x", "": "node", "日本": "node",
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62), strings.Repeat("-", 80): "node", strings.Repeat("x", 300): strings.Repeat("x", 63),
		"(none)": "none", "..": "node", ".hidden": "node", "a\nb": "a-b", "\x1b[2Jevil": "2jevil", "../../etc": "node", "LAPTOP-ÄÖ": "laptop", "a b": "a-b", "10.0.0.1": "10", "\xff\xfe": "node",
	} {
		if got := validName(host); got != want || place.ValidName(got) != nil {
			t.Errorf("validName(%q): got %q, want %q", host, got, want)
		}
	}
}

func TestQR(t *testing.T) {
	var out strings.Builder
	if err := printQR(&out, "warren1"+strings.Repeat("a", 153)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) > 32 {
		t.Errorf("the longest token: got %d lines, want one screen of at most 32", len(lines))
	}
	// The corner of the upper left finder pattern: its outer ring of seven modules starts behind the quiet zone.
	if want := "\x1b[30;107m    █▀▀▀▀▀█ "; !strings.HasPrefix(lines[2], want) {
		t.Errorf("third line: got %q, want it to start with %q", lines[2], want)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	notifier{socket: path}.send("READY=1")
	if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := l.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("got %q, %v, want READY=1", buf[:n], err)
	}
	notifier{}.send("READY=1")
	notifier{socket: "/nowhere"}.send("READY=1")
}
