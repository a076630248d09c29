package tunnel

import (
	"errors"
	"os"
	"strings"
	"time"

	"warren/tunnel/osnet"
)

/* The interface is made whole again
 *
 *	the system tells of a change │ pollEvery is over → settle → look (osnet.Link.Mend) → what others have undone is there again
 *
 * Others change it by mistake, once: a script that flushes routes, a network manager that takes it for its own. Each of these is undone at
 * once. Who does it again and again is not fought: after burst mends there is one each refill, and status says so.
 */
const (
	// settle lets the several notices of one change arrive.
	settle = 30 * time.Millisecond
	// burst is how many mends may come one after the other, refill how long it takes until there may be one more.
	burst  = 30
	refill = 10 * time.Second
	// calm is how many mends there may be again before whoever changes the interface is taken to have ended.
	calm = 3
	// share is how much of the time may be spent on looking, as one over share, and longestRest bounds what follows: with 200,000 routes in
	// the system a look takes 20 ms.
	share       = 20
	longestRest = 400 * time.Millisecond
)

// mending says when the interface is looked at. It is pure. Its zero value has all of burst.
type mending struct {
	due   time.Time // zero: there is no reason to look
	rest  time.Time // no look before this
	spent float64   // of burst
	at    time.Time // of spent
	weary bool      // somebody changes the interface so often that it is mended at times only
}

// stir notes that something may have changed.
func (m *mending) stir(now time.Time) {
	if !m.due.IsZero() {
		return
	}
	m.due = now.Add(settle)
	if m.rest.After(m.due) {
		m.due = m.rest
	}
}

// looked notes a look that began at a time and has ended now, and whether there was something to mend.
func (m *mending) looked(began, now time.Time, mended bool) {
	m.due, m.rest = time.Time{}, now.Add(min(now.Sub(began)*share, longestRest))
	m.spent = max(m.spent-now.Sub(m.at).Seconds()/refill.Seconds(), 0)
	m.at = now
	if mended {
		m.spent++
	}
	switch left := burst - m.spent; {
	case left < 1:
		m.weary = true
		m.rest = now.Add(time.Duration((1 - left) * float64(refill)))
	case left >= calm:
		m.weary = false
	}
}

// mend looks at the interface and makes it what was last set.
func (l *linked) mend() {
	began := time.Now()
	lost, err := l.link.Mend()
	was := l.mending.weary
	l.mending.looked(began, time.Now(), len(lost) > 0)
	if errors.Is(err, os.ErrNotExist) {
		l.end(ErrGone)
		return
	}
	if len(lost) > 0 {
		l.last = strings.Join(lost, ", ")
		if err = l.without6(err); err != nil {
			l.log.Warn("interface not put right", "name", l.name, "reason", l.last, "error", err)
		} else {
			l.log.Info("interface put right", "name", l.name, "reason", l.last)
			l.resized()
		}
	}
	if errors.Is(err, osnet.ErrMoved) {
		l.end(err)
		return
	}
	if !was && l.mending.weary {
		l.log.Warn("interface changed by others again and again", "name", l.name, "reason", l.last)
	}
	l.judge(err)
}

// end has the tunnel end, for good.
func (l *linked) end(why error) {
	select {
	case l.over <- why:
	default:
	}
}

// judge notes what is wrong with the interface, after a Set or a look.
func (l *linked) judge(err error) {
	var text string
	switch {
	case err != nil:
		text = "interface " + l.name + " is not whole: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	case l.no6:
		text = "IPv6 is switched off on this system: " + l.name + " carries IPv4 only"
	case l.mending.weary:
		text = "something on this machine changes interface " + l.name + " again and again (" + l.last + "): it is put right every " + refill.String() + " only"
	}
	l.trouble.Store(&text)
}
