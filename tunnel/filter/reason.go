package filter

// Reason is why a packet does not pass.
type Reason uint8

// The reasons. NotAllowed and IncomingOff are told to people; all others are of packets that no honest machine sends, or that come late.
const (
	None          Reason = iota
	Malformed            // shorter than it says, or against the standard in its headers
	Unsupported          // an extension header, option or ICMP message that does not pass, whoever sends it
	FragmentTiny         // a first fragment without the whole header of its protocol (RFC 3128, RFC 7112)
	FragmentAlone        // a later fragment whose first one has not passed, or that overlaps it
	ErrorAlone           // an ICMP error about no flow of who sends it
	NoFlow               // an answer to nothing
	NotAllowed           // no rule lets it begin a flow
	IncomingOff          // this machine takes no new flows
	TableFull            // too many flows of this peer, or of all
	reasons
)

var reasonNames = [reasons]string{
	"", "malformed", "unsupported header", "tiny fragment", "fragment alone", "ICMP error alone", "answer to nothing", "not allowed by the policy", "incoming is off",
	"too many flows",
}

// String returns the reason in words.
func (r Reason) String() string { return reasonNames[r] }

// Dropped returns how many packets did not pass, by reason.
func (f *Filter) Dropped() map[string]uint64 {
	out := make(map[string]uint64, reasons-1)
	for r := None + 1; r < reasons; r++ {
		out[r.String()] = f.drops[r].Load()
	}
	return out
}
