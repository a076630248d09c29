package verdict

import (
	"testing"
	"time"
)

// TestContact holds the one place where it is decided whether a peer is there. What is not heard is not up, whoever it is.
func TestContact(t *testing.T) {
	way := func(change func(*Signs)) Signs {
		s := Signs{Now: judgedAt, Way: true, Watched: true, Keyed: before(time.Minute)}
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name string
		s    Signs
		want Contact
	}{
		{"nothing is known", Signs{Now: judgedAt}, Connecting},
		{"no way for a moment, whatever was before", Signs{Now: judgedAt, Pathless: before(7900 * time.Millisecond), Keyed: before(time.Hour)}, Connecting},
		{"no way for longer than a try takes", Signs{Now: judgedAt, Pathless: before(8 * time.Second)}, Down},
		{"no way for an hour, though nothing could be tried", Signs{Now: judgedAt, Pathless: before(time.Hour)}, Down},
		{"no way, though heard just now by the last one", Signs{Now: judgedAt, Pathless: before(time.Minute), Heard: judgedAt, Keyed: judgedAt}, Down},
		{"a way, no keys", way(func(s *Signs) { s.Keyed = time.Time{}; s.Proved = judgedAt }), Connecting},
		{"connected just now", way(func(s *Signs) { s.Keyed, s.Proved = judgedAt, judgedAt }), Up},
		{"a packet just now", way(func(s *Signs) { s.Heard = before(1900 * time.Millisecond) }), Up},
		{"a check just now", way(func(s *Signs) { s.Proved = before(1900 * time.Millisecond) }), Up},
		{"a packet two seconds ago", way(func(s *Signs) { s.Heard = before(2 * time.Second) }), Idle},
		{"a handshake alone is no sign of the way", way(func(s *Signs) { s.Keyed = before(time.Second) }), Idle},
		{"a session alone is no sign of the way", way(func(s *Signs) { s.Beside = judgedAt }), Idle},
		{"idle for an hour", way(func(s *Signs) { s.Keyed, s.Proved = before(time.Hour), before(20*time.Second) }), Idle},
		{"dead, not in use, and nobody knows", way(func(s *Signs) { s.Proved = before(24 * time.Second) }), Idle},
		{"in use, and a check is overdue", way(func(s *Signs) { s.Sent, s.Heard, s.Overdue = judgedAt, before(time.Second), true }), Mute},
		{"no keys yet, and a check is overdue", way(func(s *Signs) { s.Keyed, s.Overdue = time.Time{}, true }), Mute},
		{"sent just now, heard before: checks will tell", way(func(s *Signs) { s.Sent, s.Heard = judgedAt, before(time.Hour) }), Idle},
		{"others miss it", way(func(s *Signs) { s.Missed = before(time.Second) }), Mute},
		{"others miss it, and it was heard since", way(func(s *Signs) { s.Missed, s.Heard = before(10*time.Second), before(time.Second) }), Up},
		{"others miss it, and its session says otherwise", way(func(s *Signs) { s.Missed, s.Beside = before(10*time.Second), before(5*time.Second) }), Idle},
		{"by a stream, packets go out and none come in", way(func(s *Signs) { s.Watched, s.Sent, s.Keyed = false, judgedAt, before(12*time.Second) }), Mute},
		{"by a stream, an answer may still come", way(func(s *Signs) { s.Watched, s.Sent, s.Keyed = false, judgedAt, before(11*time.Second) }), Idle},
		{"by a stream, sent long ago", way(func(s *Signs) { s.Watched, s.Sent, s.Keyed = false, before(time.Minute), before(time.Hour) }), Idle},
	} {
		if got := tt.s.Contact(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestContactOfStaticPeers does so for plain WireGuard peers, of which counters and handshakes are all that is known.
func TestContactOfStaticPeers(t *testing.T) {
	at := pair(host, 0, 0, 0).Remote
	for _, tt := range []struct {
		name string
		p    StaticPeer
		want Contact
	}{
		{"has to call", StaticPeer{}, Idle},
		{"its name has no address", StaticPeer{Endpoint: "x:1"}, Down},
		{"nothing was sent", StaticPeer{Addr: at}, Idle},
		{"sent, and nothing came", StaticPeer{Addr: at, TxBytes: 148}, Mute},
		{"shaken just now", StaticPeer{Addr: at, LastHandshake: before(time.Second)}, Up},
		{"shaken two minutes ago", StaticPeer{Addr: at, LastHandshake: before(2 * time.Minute)}, Idle},
		{"counters grow", StaticPeer{Addr: at, LastHandshake: before(time.Minute), Heard: before(2 * time.Second)}, Up},
		{"sent, and no answer for long", StaticPeer{Addr: at, LastHandshake: before(time.Minute), Unanswered: before(12 * time.Second)}, Mute},
		{"sent, and an answer may still come", StaticPeer{Addr: at, LastHandshake: before(time.Minute), Unanswered: before(11 * time.Second)}, Idle},
	} {
		tt.p.Now = judgedAt
		if got := tt.p.Contact(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
