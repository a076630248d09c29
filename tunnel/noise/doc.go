// Package noise is WireGuard's protocol, whole: handshakes in both roles, preshared keys, MACs and cookies, sessions, replay
// windows, rekeying, keepalives and the zeroing of keys, as in the paper (Donenfeld, NDSS 2017; sections are named in the code). It
// is a machine: it has no goroutine, no socket and no clock. Time is handed in, and what is to be done comes out as values.
//
// Left to the caller: sockets, where a peer is (its endpoint, and whether a proven source changes it), which peer a packet is for and
// whether it may come from it (allowed IPs), padding (Padded), packets that wait for a key, byte counters, and the names of what is
// counted (Drop says them).
//
// Machine and Peer belong to one goroutine, the control goroutine. Seal, Open, Ready and LastHandshake may be called by any number of
// others, the data loops: what they share with the control goroutine are atomic words and tables that are replaced, never changed.
//
// # How the loops use it
//
// Out: a packet was read, its peer found. Once for each batch, not for each packet, the loop takes the time.
//
//	n := noise.Padded(len(packet), mtu)                        // zeros behind the packet
//	arena, signal = peer.Seal(arena, packet[:n], now)          // appended: no copy, no allocation
//	if signal&noise.NoKey != 0 {
//		keep(peer, packet)                                 // a few, until Ready; GaveUp and Zeroed drop them
//		if peer.Ready(now) { flush(peer) }                 // Ready may have been seen to just before the packet was kept
//	}
//	if signal&noise.Wake != 0 { wake(peer) }                   // the control goroutine is to call Step
//
// In: a datagram was received. TypeOf says what it is.
//
//	o := machine.Open(dst, datagram, now)                      // in place: dst is datagram[16:16]
//	if o.Drop != noise.Kept { count(o.Drop); continue }        // what lies behind the end of dst is lost
//	if o.Signal&noise.Wake != 0 { wake(o.Peer) }
//	if len(o.Plain) == 0 { continue }                          // a keepalive
//	// the source of the datagram is proven to be o.Peer's; the source of the packet has to be checked
//
// wake must not block and may coalesce: a bit for each peer and one channel of capacity 1 will do. It is rare: when a timer becomes
// due earlier than planned, when a key is wanted, when a session is confirmed; a busy peer costs a wake-up every ten seconds.
// Renewing a session under traffic costs the loops nothing, and no packet.
//
// Control: one goroutine keeps a heap of peers by Next, and does
//
//	on a message that is no Transport:  received, acts = machine.Receive(msg, source, load, now, acts[:0])
//	on Wake, and at Next:               acts = peer.Step(now, acts[:0])
//	then:                               send or do each action, and ask the peer for Next again
//
// After every call of Receive, Step, Handshake, Carry or SetPersistent Next has to be asked again, since it also tells the loops when
// the control goroutine will look by itself. Handshake messages cost about half a millisecond each; the queue before the control
// goroutine is bounded, and load says that it fills up (the module's device says so at an eighth of 1,024). Limiter is the module's
// ratelimiter, with its Init called before and Close after.
//
// Actions: packets of SendInitiation and SendKeepalive go to the peer's endpoint, those of SendResponse and SendCookie back to where
// the message came from. An Attempt above 1 is a reason to forget which own address was used. On Ready what was kept is sealed and
// sent; at the initiator a keepalive goes before it, which tells the responder that it may send.
//
// Introductions: Carry makes an initiation to put into an offer; the other side hands it to Receive without a source and puts the
// SendResponse into its answer, which this side hands to Receive. The preshared key is needed by SetPresharedKey just before Receive,
// on both sides. If the answer does not come, the very same initiation may be sent over a path as soon as there is one: a copy does
// no harm.
//
// Over a restart the agent should keep Stamp and give it as Options.After: else peers drop its initiations for as long as its calendar
// was set back meanwhile (they count DropStale), as WireGuard everywhere.
//
// # What it costs
//
// Beside ChaCha20-Poly1305 itself (157 ns for 64 bytes, 0.66 µs for 1,420, where this was measured) sealing takes 10 ns a packet and
// opening 30, and nothing is allocated. A handshake takes half a millisecond on each side, nearly all of it Curve25519. A peer takes
// 0.7 KiB, with three sessions and two handshakes under way 7 KiB, no goroutine, and no step while it is at rest.
//
// # What differs from the module's device, on purpose
//
//   - An initiation of ours stays alive while one of the peer's is responded to. The device keeps one state for both, so that two that
//     cross kill each other, and both wait 5 s. Here both sessions come about, and both sides settle on that of the lesser key.
//   - Two initiations may wait for a response, one that was sent and one that is carried.
//   - What comes under an older session does not count as an answer once the newer is 5 s old: else a peer that has lost the
//     session we send with, and sends with another one, would never be found out. The silence of 15 s then begins a handshake.
//   - The previous session stays until the next one is confirmed, not only until it is offered: packets on their way are opened.
//   - A handshake is given up 90 s after it began, or after a key was last wanted; the device counts 20 initiations, about 103 s.
//     What is left of it goes then: the device would still take a late response.
//   - A wish for a handshake that comes within 5 s of the last message of one is kept, and followed then if it is still there. The
//     device forgets it, and the next packet has to wish again.
//   - Whether a second keepalive is owed is forgotten when something is sent. The device sends it once in vain.
//   - After a response a keepalive always goes, even if packets wait. The device sends it only if none do.
//   - Stamps of one peer never go back or stay, whatever the calendar does. The device's do, and are dropped as replays.
//   - A session is renewed with the first packet from 120 s on; the device waits until they are over. All other limits are its.
//   - Time may count sleep. The device's clock stands still meanwhile, and after waking it uses keys that the peer has dropped.
//   - There is no state "not running": a peer is there or it is removed, and Zero drops what a device that goes down drops. A
//     new private key is a new Machine.
//
// # What is left in memory
//
// A finished or abandoned handshake is wiped: shared secrets, chaining keys, hashes, message keys, ephemeral private keys, all of which
// go through this package's primitives on their way into and out of the Noise library. The library keeps, until the collector reuses
// the memory, its copy of the preshared key (SetPresharedKey makes one), the chaining key of the first message at the initiator
// (worth nothing without the ephemeral key, which is wiped), and the inner states of HMAC. Of x/crypto the ciphers stay: those of
// sessions hold their key where nobody can reach it, and are dropped, not wiped (a loop may be using one). Wiping those too would need
// the runtime's secret mode (GOEXPERIMENT=runtimesecret).
package noise
