package agent

import (
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/report"
	"warren/tunnel"
)

// TestTally holds what two looks at counters show: a sign of life is no younger than the look before, and what went unanswered no older than
// the look that shows it.
func TestTally(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var l tally
	for _, tt := range []struct {
		name   string
		at     int
		rx, tx uint64
		want   report.Flow
	}{
		{"first look", 0, 100, 100, report.Flow{}},
		{"nothing", 5, 100, 100, report.Flow{}},
		{"it has sent", 10, 200, 100, report.Flow{Heard: at(5)}},
		{"sent to it", 20, 200, 300, report.Flow{Heard: at(5), Unanswered: at(20)}},
		{"sent again", 30, 200, 400, report.Flow{Heard: at(5), Unanswered: at(20)}},
		{"nothing more", 40, 200, 400, report.Flow{Heard: at(5), Unanswered: at(20)}},
		{"it answers", 50, 300, 500, report.Flow{Heard: at(40)}},
		{"the device has it anew", 60, 10, 10, report.Flow{}},
	} {
		if got := l.see(at(tt.at), wgtypes.Key{1}, tunnel.PeerStats{RxBytes: tt.rx, TxBytes: tt.tx}); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if got := l.see(at(70), wgtypes.Key{2}, tunnel.PeerStats{RxBytes: 5}); got != (report.Flow{}) {
		t.Errorf("another peer: got %+v, want nothing", got)
	}
}
