package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
)

// peersOf are so many peers of every kind, most of them idle, with names of many lengths and widths.
func peersOf(n int) (out []api.Peer) {
	ago := func(d time.Duration) *time.Time { t := exampleTime.Add(-d); return &t }
	direct := api.Path{Kind: api.PathDirect, Address: netip.MustParseAddrPort("198.51.100.7:41641")}
	direct6 := api.Path{Kind: api.PathDirect, Address: netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:41641")}
	relay := api.Path{Kind: api.PathRelay, Via: "gate-of-the-north", Address: direct.Address}
	names := []string{"ada", "büro", "東京のサーバー", "a-name-of-thirty-two-characters-x", "🐇-burrow"}
	for i := range n {
		p := api.Peer{
			ID: fmt.Sprintf("id%050d", i), Name: names[i%len(names)], State: api.PeerIdle, Path: direct, LatencyMS: 12.4, RxBytes: uint64(i) << 18, TxBytes: uint64(i) << 10, PathMTU: 1376,
			Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("fd00:1122:3344::%x", i+2)), netip.AddrFrom4([4]byte{100, 71, byte(i / 200), byte(i%200 + 2)})},
			Life:      api.Life{LastHandshake: ago(time.Minute), LastHeard: ago(time.Duration(i*7) * time.Second)},
		}
		if i >= len(names) {
			p.Name = fmt.Sprintf("%s-%d", p.Name, i)
		}
		switch i % 20 {
		case 1:
			p.State, p.LastHeard = api.PeerUp, ago(0)
		case 2:
			p.State, p.Path, p.LatencyMS, p.Reason = api.PeerDown, api.Path{Kind: api.PathNone}, 0, "peer has not answered the offer (12 sent, last 8s ago); next try in 24s; no anchor serves both"
		case 3:
			p.State, p.Path, p.Reason = api.PeerUp, relay, "relayed: ICE failed: none of 4 candidates answered; next try in 24s"
		case 4:
			p.State, p.Reason = api.PeerSilent, "it does not answer; last heard 28 seconds ago"
		case 7:
			p.Path = direct6
		case 11:
			p.State, p.Path, p.Reason, p.LastHeard = api.PeerConnecting, api.Path{Kind: api.PathNone}, "ICE is trying 3 candidates of the peer since 1.2s", nil
		case 12:
			p.Static, p.Addresses, p.Routes = true, nil, []netip.Prefix{netip.MustParsePrefix("192.168.100.0/24")}
		case 13:
			p.Path.Transport, p.Reason = api.TransportTCP, "UDP does not get through"
		}
		out = append(out, p)
	}
	return out
}

func pageOf(width, height int) statusPage {
	return statusPage{screen: screen{width: width, height: height}, now: func() time.Time { return exampleTime }, mesh: "home"}
}

func statusOf(peers int) api.Status {
	s := exampleStatus()
	s.Peers, s.Mesh.Members = peersOf(peers), peers+1
	s.Dropped = map[string]uint64{"socket: malformed": 2, "sessions: no_route": 17}
	return s
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestStatusPages holds how the status looks on screens of some widths, with few and many peers. Of 300 there is what a screen of 24 lines
// shows with --watch.
func TestStatusPages(t *testing.T) {
	for _, width := range []int{40, 60, 80, 120} {
		for _, n := range []int{0, 1, 5, 40, 300} {
			for _, verbose := range []bool{false, true} {
				name := fmt.Sprintf("%d-columns-%d-peers", width, n)
				p, s := pageOf(width, 0), statusOf(n)
				if p.verbose = verbose; verbose {
					name += "-verbose"
				}
				if n == 300 {
					p.height, p.before = 24, &s
				}
				lines, err := p.lines(s)
				if err != nil {
					t.Fatal(err)
				}
				fits(t, name, lines, width)
				if n == 300 && !verbose && len(lines) > 23 {
					t.Errorf("%s: got %d lines, want 23 at most", name, len(lines))
				}
				if verbose && n > 5 {
					continue // nothing new in them
				}
				golden(t, filepath.Join("testdata", "status", name+".golden"), strings.Join(lines, "\n")+"\n")
			}
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s (-update rewrites it), %v\ngot:\n%s\nwant:\n%s", file, err, got, want)
	}
}

// fits asserts that no line is wider than the screen, whatever is in it.
func fits(t *testing.T, what string, lines []string, width int) {
	t.Helper()
	for _, line := range lines {
		if got := columns(colours.ReplaceAllString(line, "")); got > width || strings.ContainsAny(line, "\n\t") {
			t.Errorf("%s: got a line of %d columns, want %d at most:\n%s", what, got, width, line)
		}
	}
}

// TestStatusFits draws statuses made at random, of names and reasons of any shape, on screens of any size.
func TestStatusFits(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func(most int) string {
		var b strings.Builder
		for range random.IntN(most) + 1 {
			b.WriteRune([]rune("ab-é語🐇\u0301 \x1b\n")[random.IntN(10)])
		}
		return b.String()
	}
	for range 400 {
		s := statusOf(random.IntN(30))
		for i := range s.Peers {
			s.Peers[i].Name, s.Peers[i].Reason = word(60), word(200)
			s.Peers[i].State = []string{api.PeerUp, api.PeerIdle, api.PeerSilent, api.PeerDown, api.PeerLeft}[random.IntN(5)]
		}
		s.Self.Name, s.Warnings = word(80), []string{word(300)}
		p := pageOf(minWidth+random.IntN(maxWidth-minWidth+1), 5+random.IntN(60))
		p.verbose, p.colour, p.mesh = random.IntN(2) == 0, random.IntN(2) == 0, word(30)
		if random.IntN(2) == 0 {
			before := s
			before.Dropped = nil
			p.before = &before
		}
		lines, err := p.lines(s)
		if err != nil {
			t.Fatal(err)
		}
		fits(t, fmt.Sprintf("%d columns", p.width), lines, p.width)
		if len(s.Peers) > 0 {
			fits(t, "one peer", p.about(s.Peers[0]), p.width)
		}
	}
}

// TestWatchStaysOnTheScreen holds that forty idle peers push neither the head away nor those in trouble.
func TestWatchStaysOnTheScreen(t *testing.T) {
	s := statusOf(45)
	s.Warnings = []string{strings.Repeat("look at this ", 30)}
	p := pageOf(80, 20)
	p.before = &s
	lines, err := p.lines(s)
	if err != nil {
		t.Fatal(err)
	}
	drawn := p.drawn(lines)
	text := strings.Join(lines, "\n")
	if n := strings.Count(drawn, "\n"); n > 19 || !strings.HasPrefix(drawn, "\x1b[Hhome: node alpha") || !strings.HasSuffix(drawn, "\x1b[J") {
		t.Errorf("got %d lines, want 19 at most, with the head first:\n%q", n, drawn)
	}
	if !strings.Contains(text, "silent") || !regexp.MustCompile(`and \d+ more: .*\d+ idle`).MatchString(text) {
		t.Errorf("got\n%s\nwant who is in trouble, and how many are left out", text)
	}
	// On a screen that holds next to nothing the head stays all the same.
	p.height = 3
	if lines, err = p.lines(s); err != nil || !strings.HasPrefix(p.drawn(lines), "\x1b[Hhome: node alpha") || strings.Count(p.drawn(lines), "\n") > 2 {
		t.Errorf("got %q, %v, want two lines, the head first", p.drawn(lines), err)
	}
}

// TestStatusOrder holds that what needs attention comes first, and that each state is told with what is known of it.
func TestStatusOrder(t *testing.T) {
	s := statusOf(20)
	lines, err := pageOf(120, 0).lines(s)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, line := range lines {
		if m := regexp.MustCompile(`(?:100\.71\S+|192\.168\S+) +(\w+)`).FindStringSubmatch(line); m != nil && !strings.Contains(line, "node alpha") {
			states = append(states, m[1])
		}
	}
	want := "silent down connecting up up idle"
	if got := strings.Join(slices.Compact(states), " "); got != want && got != strings.Replace(want, "up up", "up", 1) {
		t.Errorf("got states in the order %s, want %s", got, want)
	}
}

// TestDropsThatGrow holds that what was dropped once is no news, and what is dropped now is.
func TestDropsThatGrow(t *testing.T) {
	s := statusOf(1)
	before := s
	text := func(p statusPage) string {
		lines, err := p.lines(s)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	p := pageOf(80, 24)
	if got := text(p); strings.Contains(got, "drop") {
		t.Errorf("got\n%s\nwant nothing of what was dropped before", got)
	}
	p.before = &before
	if got := text(p); strings.Contains(got, "drop") {
		t.Errorf("counters that stand still: got\n%s\nwant nothing", got)
	}
	s.Dropped, s.Time = map[string]uint64{"socket: malformed": 12, "sessions: no_route": 17}, s.Time.Add(2*time.Second)
	if got, want := text(p), "dropping now: socket: malformed 10 (within 2.0s)"; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant %q", got, want)
	}
	before.Since = before.Since.Add(time.Hour)
	if got := text(p); strings.Contains(got, "dropping") {
		t.Errorf("of another process: got\n%s\nwant nothing", got)
	}
	p.verbose = true
	s.Streams = &api.Streams{Accepted: 3, Joins: 1, Limited: 40, Failed: 5}
	for _, want := range []string{"dropped since the start: sessions: no_route 17, socket: malformed 12", "streams: accepted 3, of joiners 1, limited 40, failed 5"} {
		if got := text(p); !strings.Contains(got, want) {
			t.Errorf("-v: got\n%s\nwant %q", got, want)
		}
	}
}

// TestColours holds that there are some on a terminal, and none elsewhere.
func TestColours(t *testing.T) {
	p := pageOf(80, 0)
	for _, colour := range []bool{false, true} {
		p.colour = colour
		lines, err := p.lines(statusOf(20))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(lines, ""), "\x1b["); got != colour {
			t.Errorf("colours %v: got escapes %v", colour, got)
		}
	}
	t.Setenv("NO_COLOR", "1")
	if s := screenOf(&strings.Builder{}); s.colour || s.live || s.width != usualWidth || s.height != 0 {
		t.Errorf("got %+v for what is no terminal, want 80 columns without an end", s)
	}
}

func TestFindPeer(t *testing.T) {
	peers := peersOf(5)
	peers = append(peers, api.Peer{Name: "ada", ID: "zzzz", PublicKey: "KEY="})
	status := api.Status{Self: api.Self{Name: "here", ID: "yyyy"}, Peers: peers, Revoked: []api.Revoked{{Kind: "node", Scope: api.ScopeWhole, ID: "xxxx", Name: "gone"}}}
	for text, want := range map[string]string{"büro": "büro", "100.71.0.4": "東京のサーバー", "fd00:1122:3344::5": "a-name-of-thirty-two-characters-x", "zzzz": "ada", "KEY=": "ada", peers[4].ID: "🐇-burrow"} {
		if got, err := findPeer(status, text); err != nil || got.Name != want {
			t.Errorf("%s: got %s, %v, want %s", text, got.Name, err, want)
		}
	}
	for text, want := range map[string]string{"ada": "may mean several", "nobody": "nobody is called", "id00": "may mean several", "": "nobody is called", "here": "is this machine", "gone": "no member any more"} {
		if _, err := findPeer(status, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text          string
		width, indent int
		want          string
	}{
		{"", 10, 2, ""}, {"one two three", 20, 2, "one two three"}, {"one two three", 10, 2, "one two|  three"}, {"abcdefghijklmnop", 10, 0, "abcdefghij|klmnop"},
		{"ab 語語語語語語語語", 10, 2, "ab|  語語語語|  語語語語"},
	} {
		if got := strings.Join(wrap(tt.text, tt.width, tt.indent), "|"); got != tt.want {
			t.Errorf("wrap(%q, %d, %d): got %q, want %q", tt.text, tt.width, tt.indent, got, tt.want)
		}
	}
	for text, want := range map[string]int{"abc": 3, "é": 1, "e\u0301": 1, "語": 2, "🐇": 2} {
		if got := columns(text); got != want {
			t.Errorf("columns(%q): got %d, want %d", text, got, want)
		}
	}
}
