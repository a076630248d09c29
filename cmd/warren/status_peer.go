package main

import (
	"fmt"
	"strings"

	"warren/mesh/api"
)

// findPeer finds the peer that a person means. This machine has the head of the whole page, and who is out has none.
func findPeer(s api.Status, text string) (api.Peer, error) {
	who, err := find(s, text)
	switch {
	case err != nil:
		return api.Peer{}, err
	case who.self:
		return api.Peer{}, hinted(fmt.Errorf("%q is this machine", text), "warren status says all about it")
	case who.revoked != nil:
		return api.Peer{}, hinted(fmt.Errorf("%q is no member any more", text), "see: warren whois "+text)
	}
	return who.Peer, nil
}

// about is all that the status tells of one peer.
func (p statusPage) about(peer api.Peer) (out []string) {
	width := 0
	var facts [][2]string
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, [2]string{name, clean(value)})
			width = max(width, len(name))
		}
	}
	add("state", p.state(peer))
	add("reason", peer.Reason)
	add("path", strings.TrimSpace(shownPath(peer.Path)+" "+latency(peer.LatencyMS)))
	add("standing by", peer.Path.Standby)
	add("address", shownAddress(peer))
	add("also", otherAddresses(peer))
	add("last heard", ago(p.now(), peer.LastHeard))
	add("handshake", ago(p.now(), peer.LastHandshake))
	add("path since", ago(p.now(), peer.Since))
	if peer.PathMTU > 0 {
		add("packets", fmt.Sprintf("up to %d bytes pass", peer.PathMTU))
	}
	add("traffic", fmt.Sprintf("%s in, %s out", size(peer.RxBytes), size(peer.TxBytes)))
	add("is", kindOf(peer))
	add("tags", strings.Join(peer.Tags, ", "))
	add("admitted by", peer.AdmittedBy)
	add("version", peer.Version)
	add("ID", peer.ID)
	add("public key", peer.PublicKey)
	for _, line := range wrap(clean(peer.Name), p.width, 2) {
		out = append(out, p.paint(bold, line))
	}
	for _, fact := range facts {
		lines := wrap(fact[1], max(p.width-width-gap, 8), 0)
		for i, line := range lines {
			name := fact[0]
			if i > 0 {
				name = ""
			}
			if fact[0] == "state" {
				line = p.paint(stateColour(peer), line)
			}
			out = append(out, padded(name, width)+"  "+line)
		}
	}
	if !peer.Static && peer.State != api.PeerLeft && (!reached(peer) || peer.Path.Kind == api.PathRelay) {
		out = append(out, "")
		out = append(out, wrap(clean("why, and what would help: warren why "+peer.Name+p.flag), p.width, 2)...)
	}
	return out
}

// kindOf says what a peer is for the mesh.
func kindOf(peer api.Peer) string {
	parts := []string{"a member"}
	if peer.Static {
		parts[0] = "a static peer"
	}
	if peer.Admin {
		parts = append(parts, "an admin")
	}
	if peer.Anchor {
		parts = append(parts, "an anchor")
	}
	return strings.Join(parts, ", ")
}
