package relay

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"warren/mesh/identity"
)

// An anchor that does not tell its load is left alone for followAgain, since its session may be on the way, and twice as long each time
// that it is asked in vain.
const (
	followAgain  = 10 * time.Second
	followSeldom = 10 * time.Minute
)

// followed is an anchor whose load is wanted.
type followed struct {
	stop context.CancelFunc
	load uint8 // as it last told, 0 when it does not
}

// Follow says of which anchors to know the load; it replaces what was said before. What an anchor tells comes with Load,
// and News says when.
func (c *Client) Follow(anchors []identity.NodeID) {
	var left []*followed
	c.mu.Lock()
	for id, f := range c.follows {
		if !slices.Contains(anchors, id) {
			left = append(left, f)
			delete(c.follows, id)
		}
	}
	for _, id := range anchors {
		if c.follows[id] != nil || c.closed {
			continue
		}
		ctx, stop := context.WithCancel(context.Background())
		f := &followed{stop: stop}
		c.follows[id] = f
		c.work.Go(func() { c.follow(ctx, id, f) })
	}
	c.mu.Unlock()
	for _, f := range left {
		f.stop()
	}
}

// Load is what an anchor last told of its load: 0 for none or not known, 255 for all that it can carry.
func (c *Client) Load(anchor identity.NodeID) uint8 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.follows[anchor]; f != nil {
		return f.load
	}
	return 0
}

// News has a value after Load of some anchor or Anchors has become another.
func (c *Client) News() <-chan struct{} { return c.news }

func (c *Client) announce() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// follow listens to one anchor until it is not followed any more.
func (c *Client) follow(ctx context.Context, anchor identity.NodeID, f *followed) {
	defer f.stop()
	for wait := followAgain; ; wait = min(2*wait, followSeldom) {
		if c.listen(ctx, anchor, f) {
			wait = followAgain
		}
		c.told(f, 0)
		timer := time.NewTimer(wait + rand.N(wait/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// listen takes what an anchor tells until the stream ends. It reports whether it told anything.
func (c *Client) listen(ctx context.Context, anchor identity.NodeID, f *followed) (told bool) {
	attempt, done := context.WithTimeout(ctx, requestTimeout)
	defer done()
	stream, _, err := c.options.Dialer.DialRelay(attempt, anchor, false)
	if err != nil {
		return false
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	stream.SetDeadline(time.Now().Add(requestTimeout))
	if writeRequest(stream, identity.NodeID{}) != nil {
		return false
	}
	if _, err := readGrant(stream); err != nil {
		return false
	}
	stream.SetDeadline(time.Time{})
	var load [1]byte
	for {
		if _, err := stream.Read(load[:]); err != nil {
			return told
		}
		told = true
		c.told(f, load[0])
	}
}

func (c *Client) told(f *followed, load uint8) {
	c.mu.Lock()
	before := f.load
	f.load = load
	c.mu.Unlock()
	if before != load {
		c.announce()
	}
}

// Anchors lists those with which a control session is needed: each has a channel of this node, or is being asked for one.
func (c *Client) Anchors() []identity.NodeID {
	needed := make(map[identity.NodeID]bool)
	c.mu.Lock()
	for _, o := range c.open {
		needed[o.anchor] = true
	}
	for id := range c.asking {
		needed[id] = true
	}
	c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(needed), identity.NodeID.Compare)
}

// ask notes that an anchor is being asked for a channel; the returned function takes the note back.
func (c *Client) ask(anchor identity.NodeID) (done func()) {
	c.mu.Lock()
	c.asking[anchor]++
	c.mu.Unlock()
	c.announce()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.asking[anchor]--; c.asking[anchor] == 0 {
			delete(c.asking, anchor)
		}
	}
}
