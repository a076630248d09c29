package fit

// Drop is a reason why a packet went no further.
type Drop int

// The reasons. Of those that are too large the sender is told.
const (
	DropTooLarge   Drop = iota // for the path to the peer, and not to be fragmented
	DropUnsplit                // larger than the path, and in a form that cannot be cut
	DropProbeQueue             // a probe or an answer, because too many wait
	DropProbe                  // a probe that is damaged, or an answer to none
	DropForged                 // a probe that another program of this machine has made
	DropHops                   // on its way through this node, with no hop left
	DropTransit                // on its way through this node, because too many wait
	drops
)

var dropNames = [drops]string{
	"too large for the path", "not to be fragmented", "probe queue full", "bad probe", "forged probe", "no hop left", "transit queue full",
}

// String returns the reason in words.
func (d Drop) String() string { return dropNames[d] }

// Dropped returns how many packets were dropped, by reason.
func (d *Device) Dropped() map[string]uint64 {
	out := make(map[string]uint64, drops)
	for i := range d.drops {
		out[Drop(i).String()] = d.drops[i].Load()
	}
	return out
}
