package path

import (
	"net/netip"
	"testing"
	"time"

	"warren/nat/due"
)

// An offer is repeated when answers should have come, as those of other peers do at present: where all are slow, what is repeated sooner keeps them so.
func TestRepeatedAsAnswersCome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		known time.Duration
		want  int
	}{{"nothing is known", 0, 2}, {"others take longer", 700 * time.Millisecond, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.latency = 300 * time.Millisecond
			if tt.known > 0 {
				w.answers[0] = new(Answers)
				w.answers[0].note(w.now, tt.known)
			}
			w.start(0)
			w.start(1)
			w.run(4*time.Second, true)
			if got := w.side[0].sent[KindOffer]; got != tt.want || w.kinds() != [2]PathKind{Direct, Direct} {
				t.Errorf("got %d offers and %v, want %d and direct paths", got, w.kinds(), tt.want)
			}
		})
	}
}

// A side that comes late to repeat an offer gives the answer time once; then it repeats it.
func TestLateSideIsInNoHurry(t *testing.T) {
	w := newWorld(t, 3)
	w.start(0)
	w.run(300*time.Millisecond, false)
	w.busy[0] = w.now.Add(300 * time.Millisecond) // beyond the first repetition
	for _, tt := range []struct {
		more time.Duration
		want int
	}{{700 * time.Millisecond, 1}, {time.Second, 2}} {
		w.run(tt.more, false)
		if got := w.side[0].sent[KindOffer]; got != tt.want {
			t.Errorf("after %v more: got %d offers, want %d", tt.more, got, tt.want)
		}
	}
}

// What was measured holds for a while, follows what is slower at once, and knows nothing of peers that were not there.
func TestAnswers(t *testing.T) {
	var a Answers
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		after, took, want time.Duration
	}{
		{0, 800 * time.Millisecond, time.Second},
		{time.Second, 100 * time.Millisecond, 500 * time.Millisecond},
		{time.Second, attemptTime + 1, 500 * time.Millisecond},
		{time.Second, 3 * time.Second, longestAnswer},
		{due.AnswersLast, attemptTime + 1, 400 * time.Millisecond},
	} {
		now = now.Add(tt.after)
		a.note(now, tt.took)
		if got := a.spacing(now, 400*time.Millisecond); got != tt.want {
			t.Errorf("an answer after %v: got a spacing of %v, want %v", tt.took, got, tt.want)
		}
	}
}

// A channel that nobody has answered is not checked any more once a direct path stands.
func TestChannelThatWasLeftIsNotChecked(t *testing.T) {
	w := newWorld(t, 3)
	w.punching, w.relayed = 600*time.Millisecond, false // the channels are open before there is a path, and bring nothing
	w.start(0)
	w.start(1)
	w.until(Direct, 2*time.Second, true)
	w.run(400*time.Millisecond, true)
	before := w.side[0].checks + w.side[1].checks
	w.run(8*time.Second, true)
	if got := w.side[0].checks + w.side[1].checks - before; got > 2 {
		t.Errorf("got %d checks in 8 s beside a direct path, want none", got)
	}
}

// Where answers take long ICE does too: a channel is not opened for a pair that has a direct path a moment later. One that has none is relayed.
func TestSlowPairsOpenNoChannels(t *testing.T) {
	for _, tt := range []struct {
		known  time.Duration
		direct bool
		want   PathKind
		opened bool
	}{
		{0, true, Direct, true},
		{2 * time.Second, true, Direct, false},
		{1400 * time.Millisecond, true, Direct, false}, // half of it after an answer that came at once
		{time.Second, true, Direct, true},
		{2 * time.Second, false, Relayed, true},
	} {
		w := newWorld(t, 3)
		w.direct, w.punching = tt.direct, 300*time.Millisecond
		for i := range w.answers {
			w.answers[i] = new(Answers)
			w.answers[i].note(w.now, tt.known)
		}
		w.start(0)
		w.start(1)
		w.run(time.Second, true)
		opened := len(w.side[0].m.route.relays.list) > 0
		if w.kinds() != [2]PathKind{tt.want, tt.want} || opened != tt.opened {
			t.Errorf("answers take %v, direct %v: got %v, a channel: %v; want %v, %v", tt.known, tt.direct, w.kinds(), opened, tt.want, tt.opened)
		}
	}
}

// An offer that comes once more after its sender has chosen a path crossed the answer.
func TestNoAnswerToWhoHasChosen(t *testing.T) {
	w := newWorld(t, 1)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, false)
	s := w.side[1]
	before := s.sent[KindAnswer]
	sig := &w.side[0].m.intro.sig
	again := sig.message(w.side[0].m.intro.local, relayUse{})
	again.Instance = w.side[0].instance
	w.input(1, Received{Message: again})
	if got := s.sent[KindAnswer]; got != before {
		t.Errorf("got %d answers, want the %d of before", got, before)
	}
}

// Whose checks are answered by the peer's agent has no need to answer the same offer again: that agent runs since the answer came.
func TestNoAnswerToWhoRuns(t *testing.T) {
	for _, runs := range []bool{false, true} {
		m, now := lone(t, 3, 2)
		offer := Message{Kind: KindOffer, Attempt: 7, Instance: [8]byte{9}, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwx"}
		m.Step(now, Received{offer})
		now = now.Add(10 * time.Millisecond)
		if runs {
			m.Step(now, PairAnswered{Attempt: 7, Addr: netip.MustParseAddrPort("198.51.100.7:9277")})
		}
		out, _ := m.Step(now.Add(10*time.Millisecond), Received{offer})
		answers := 0
		for _, o := range out {
			if s, ok := o.(Send); ok && s.Message.Kind == KindAnswer {
				answers++
			}
		}
		if want := map[bool]int{false: 1, true: 0}[runs]; answers != want {
			t.Errorf("its agent runs %v: got %d answers to the repeated offer, want %d", runs, answers, want)
		}
	}
}

// An offer that comes right behind the reminder of it is not asked for, and an ask that knows of no reminder does not bring it again.
func TestOfferBehindItsReminder(t *testing.T) {
	m, now := lone(t, 3, 2)
	asks := func(out []Output) (list []Message) {
		for _, o := range out {
			if s, ok := o.(Send); ok && s.Message.Kind == KindAsk {
				list = append(list, s.Message)
			}
		}
		return list
	}
	m.Step(now, Routable{})
	now = now.Add(askSpacing)
	out, wake := m.Step(now, Received{Message{Kind: KindRemind, Attempt: 7, Instance: [8]byte{9}}})
	if got := asks(out); len(got) > 0 {
		t.Fatalf("got %v at once, want the offer given time", got)
	}
	if got := wake.Sub(now); got <= 0 || got > leastPatience {
		t.Fatalf("looks again after %v, want %v at most", got, leastPatience)
	}
	out, _ = m.Step(wake, Wake{})
	if got := asks(out); len(got) != 1 || got[0].Lacks != 7 {
		t.Errorf("got %v when it has not come, want one ask that lacks offer 7", got)
	}
	m, now = lone(t, 3, 2)
	m.Step(now, Routable{})
	now = now.Add(askSpacing)
	m.Step(now, Received{Message{Kind: KindRemind, Attempt: 7, Instance: [8]byte{9}}})
	out, _ = m.Step(now.Add(time.Millisecond), Received{Message{Kind: KindOffer, Attempt: 7, Instance: [8]byte{9}, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwx"}})
	for end := now.Add(askSpacing); !wake.IsZero() && wake.Before(end); {
		var more []Output
		more, wake = m.Step(wake, Wake{})
		out = append(out, more...)
	}
	if got := asks(out); len(got) > 0 {
		t.Errorf("got %v although the offer came, want none", got)
	}

	m, now = lone(t, 1, 2)
	m.core.cfg.Answers = new(Answers)
	for m.core.cfg.Answers.mayRepeat(now) {
	}
	m.Step(now, Routable{})
	number := m.intro.sig.number
	m.Step(now.Add(firstRepeat*2), Wake{})
	if !m.intro.sig.reminded {
		t.Fatal("got the offer repeated whole, want a reminder")
	}
	for _, lacks := range []uint64{0, number} {
		out, _ := m.Step(now.Add(firstRepeat*2+askSpacing/4), Received{Message{Kind: KindAsk, Instance: [8]byte{9}, Lacks: lacks}})
		offers := 0
		for _, o := range out {
			if s, ok := o.(Send); ok && s.Message.Kind == KindOffer {
				offers++
			}
		}
		if want := map[bool]int{false: 0, true: 1}[lacks == number]; offers != want {
			t.Errorf("an ask that lacks %d: got %d offers, want %d", lacks, offers, want)
		}
	}
}

// When many offers are out, peers are reminded of them instead of sent them again: who has one answers again, who has not asks for it.
func TestReminder(t *testing.T) {
	for _, tt := range []struct {
		name           string
		others         bool
		lost           time.Duration // all signals, for so long
		offers         int
		reminders, ask int // of the peer
	}{
		{name: "one peer", offers: 2},
		{name: "many peers", others: true, offers: 1, reminders: 1},
		{name: "one peer, the offer was lost", lost: 100 * time.Millisecond, offers: 2},
		{name: "many peers, the offer was lost", others: true, lost: 100 * time.Millisecond, offers: 2, reminders: 1, ask: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.latency = 250 * time.Millisecond
			w.answers[0] = new(Answers)
			for tt.others && w.answers[0].mayRepeat(w.now) {
			}
			if tt.lost > 0 {
				w.latency, w.loss = 20*time.Millisecond, 1
				w.after(tt.lost, func() { w.loss = 0 })
			}
			w.start(0)
			if tt.lost > 0 {
				w.run(tt.lost, false)
			}
			w.start(1)
			asked := w.side[1].sent[KindAsk]
			if tt.lost > 0 { // the ask of who has just begun would do what the reminder is for
				w.side[1].m.intro.sig.waiting, w.side[1].m.intro.sig.last = false, time.Time{}
			}
			w.run(3*time.Second, false)
			sent := w.side[0].sent
			if sent[KindOffer] != tt.offers || sent[KindRemind] != tt.reminders || w.kinds() != [2]PathKind{Direct, Direct} {
				t.Errorf("got %d offers, %d reminders and %v, want %d, %d and direct paths", sent[KindOffer], sent[KindRemind], w.kinds(), tt.offers, tt.reminders)
			}
			if got := w.side[1].sent[KindAsk] - asked; got < tt.ask {
				t.Errorf("got %d asks, want %d at least", got, tt.ask)
			}
		})
	}
}
