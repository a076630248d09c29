package netwatch

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"warren/nat/rtnl"
)

// defaultRoutes returns a text of each default route of the main table, sorted, and the links that they leave by.
func defaultRoutes() (texts []string, links []int, err error) {
	hops, err := rtnl.DefaultHops()
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	for _, h := range hops {
		texts = append(texts, fmt.Sprintf("%d via %s dev %d metric %d", h.Family, h.Via, h.Link, h.Metric))
		links = append(links, h.Link)
	}
	slices.Sort(texts)
	return texts, links, nil
}

// subscribe returns a channel that gets a value, coalesced, at each change of links or addresses, or of a default route, until ctx ends.
func subscribe(ctx context.Context) (<-chan struct{}, error) { return rtnl.Subscribe(ctx, tells) }

// tells reports whether a message may be about something that counts. Routes that are no default routes do not: a router that
// speaks BGP changes hundreds a second.
func tells(m rtnl.Message) bool {
	return m.Kind != unix.RTM_NEWROUTE && m.Kind != unix.RTM_DELROUTE || m.IsDefaultRoute()
}
