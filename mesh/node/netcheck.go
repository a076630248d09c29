package node

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/api"
	"warren/mesh/report"
)

// Netcheck measures what this network does with UDP, and what else would lead to the anchors.
func (b *backend) Netcheck(ctx context.Context) (api.Netcheck, error) {
	m, err := b.inMesh()
	if err != nil {
		return api.Netcheck{}, err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	m.nat.Probe() // of the shared socket
	var tasks sync.WaitGroup
	tasks.Go(func() { m.measure(ctx) })
	anchors := b.report().Mesh.Anchors()
	for i := range anchors {
		if a := &anchors[i]; a.Public() {
			tasks.Go(func() { a.Look = lookTCP(ctx, m.verify, a.ID, a.Address) })
		}
	}
	tasks.Wait()

	table := m.routes.Load()
	n := report.Network{
		Started: start, Name: m.nameOf(m.self), Port: m.socket.Port(), Hosts: m.hostAddresses(), IPv4: m.measurement(true), IPv6: m.measurement(false),
		Reach: table.reach, Anchors: anchors, Streams: m.reportStreams(table),
	}
	if m.relaying() { // else, as configured, none is asked
		n.Routers = m.mapper.Snapshot().Routers
	}
	if at, worth := n.PageAt(); worth {
		n.Page = lookHTTP(ctx, at)
	}
	n.Took = time.Since(start)
	return report.Netcheck(n), nil
}

// measurement is what the last measurement of a family found out, and under which addresses the shared socket is seen.
func (m *member) measurement(v4 bool) report.Measurement {
	got, _ := m.outlook.latest(v4)
	var seen []netip.AddrPort
	for _, s := range m.sightings(v4) {
		seen = append(seen, s.Mapped)
	}
	return report.Measurement{Report: got.report, Err: got.err, Seen: seen}
}
