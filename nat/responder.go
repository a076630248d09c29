package nat

import (
	"net/netip"

	"warren/nat/limit"
)

// Limits of answers to Binding requests without credentials, in each second. They suit an anchor of a
// mesh of thousands, and many nodes behind one address.
const (
	answersPerSecond = 1000
	answersPerSource = 50
)

func newAnswerLimit() *limit.Sources[netip.Prefix] {
	return limit.NewSources[netip.Prefix](
		limit.Rate{PerSecond: answersPerSecond, Burst: answersPerSecond}, limit.Rate{PerSecond: answersPerSource, Burst: answersPerSource},
	)
}
