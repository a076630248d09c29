package fit

import "net/netip"

/* A packet's way in
 *
 * WireGuard has decrypted it and checked that its source is an address of the peer that sent it.
 *
 * 1. Probes and answers are taken out of the batch; a probe is answered by the next Read.
 * 2. A TCP SYN has its segment size lowered to what the path to its sender carries.
 * 3. What is for another peer, and goes through this node to it or from it, is set aside (transit.go).
 * 4. The rest goes to the kernel.
 */

// Write implements tun.Device.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	kept, passed, t := 0, false, d.table.Load()
	for i, buf := range bufs {
		packet := buf[offset:]
		if isProbe(packet) && d.probe(packet) {
			continue
		}
		if tcp := tcpSYN(packet); tcp > 0 {
			if p := t.lookup(source(packet)); p != nil {
				clampMSS(packet, tcp, p.getLimit().Clamp)
			}
		}
		if t.passes(packet) {
			if d.judge == nil || d.judge.Through(packet) {
				d.pass(packet)
				passed = true
			}
			continue
		}
		bufs[kept], bufs[i] = bufs[i], bufs[kept]
		kept++
	}
	if passed {
		d.wake()
	}
	if kept == 0 {
		return 0, nil
	}
	return d.Device.Write(bufs[:kept], offset)
}

// source returns the address that a packet comes from. It has a whole header.
func source(p []byte) netip.Addr {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[12:16]))
	}
	return netip.AddrFrom16([16]byte(p[8:24]))
}

// probe takes a probe or an answer, and reports whether it was for this node.
func (d *Device) probe(packet []byte) bool {
	t := d.table.Load()
	if netip.AddrFrom16([16]byte(packet[24:40])) != t.self {
		return false
	}
	from := source(packet)
	p := t.lookup(from)
	n, ok := parseNote(packet)
	switch {
	case !ok || p == nil:
		d.drops[DropProbe].Add(1)
	case n.kind == kindAsk:
		d.push(note{kind: kindAnswer, to: from, size: len(packet), nonce: n.nonce})
	default:
		d.step(p, answered(n))
	}
	return true
}
