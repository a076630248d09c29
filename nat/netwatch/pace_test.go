package netwatch

import (
	"slices"
	"testing"
	"time"
)

// told plays what the system says at which time, and returns when it is told. The last state stays for a minute.
func told(script map[time.Duration]network, begin network) (all []time.Duration) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := pace{now: begin, known: begin}
	for at := time.Duration(0); at < time.Minute; at += 10 * time.Millisecond {
		now := start.Add(at)
		if seen, ok := script[at]; ok {
			p.see(now, seen)
		}
		if p.ready(now) {
			p.told(now)
			all = append(all, at)
		}
	}
	return all
}

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	home, cafe, down := network{addrs: addrs("192.168.1.5")}, network{addrs: addrs("10.0.0.5")}, network{}
	flaps := func(n int, away time.Duration, back network) map[time.Duration]network {
		script := make(map[time.Duration]network)
		for i := range n {
			script[time.Duration(i)*time.Second] = down
			script[time.Duration(i)*time.Second+away] = back
		}
		return script
	}
	for _, c := range []struct {
		name   string
		script map[time.Duration]network
		want   []time.Duration
	}{
		{"another network", map[time.Duration]network{50 * ms: cafe}, []time.Duration{50 * ms}},
		{"nothing new", map[time.Duration]network{50 * ms: home}, nil},
		{"down for good", map[time.Duration]network{50 * ms: down}, []time.Duration{1050 * ms}},
		{"down for a moment, and another network", map[time.Duration]network{50 * ms: down, 350 * ms: cafe}, []time.Duration{350 * ms}},
		{"down for a moment", map[time.Duration]network{50 * ms: down, 350 * ms: home}, []time.Duration{350 * ms}},
		{"two changes", map[time.Duration]network{0: cafe, 100 * ms: home}, []time.Duration{0, 1000 * ms}},
		{"two changes, far apart", map[time.Duration]network{0: cafe, 20 * time.Second: home, 20100 * ms: cafe}, []time.Duration{0, 20 * time.Second, 21 * time.Second}},
		{"to and fro between two networks", map[time.Duration]network{
			0: cafe, 1500 * ms: home, 3 * time.Second: cafe, 3500 * ms: home, 6 * time.Second: cafe,
		}, []time.Duration{0, 1500 * ms, 3 * time.Second, 4 * time.Second, 6 * time.Second}},
		{"ten flaps in ten seconds", flaps(10, 500*ms, home), []time.Duration{500 * ms, 1500 * ms, 3500 * ms, 7500 * ms, 11500 * ms}},
	} {
		if got := told(c.script, home); !slices.Equal(got, c.want) {
			t.Errorf("%s: got it told at %v, want %v", c.name, got, c.want)
		}
	}
}
