package report

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"
	"time"

	"warren/mesh/roster"
	"warren/mesh/verdict"
)

// expiresSoon is how long before the end of this node's certificate a person is told.
const expiresSoon = 30 * 24 * time.Hour

// warnings says in words what a person should look at.
func (m *Mesh) warnings(names Names, now time.Time) (out []string) {
	if left := m.Expires.Sub(now); left < expiresSoon {
		out = append(out, fmt.Sprintf("this node's certificate ends in %d days, on %s: invite it anew before then", int(left.Hours()/24), m.Expires.Format(time.DateOnly)))
	}
	if m.Records.Conflict != "" {
		out = append(out, m.Records.Conflict)
	}
	out = append(out, clocks(m.Clocks, names)...)
	if text := m.onlyAdmin(names); text != "" {
		out = append(out, text)
	}
	for _, i := range m.Records.Invites {
		if i.Used > i.Terms.Uses && !i.Revoked {
			out = append(out, fmt.Sprintf("invite %s let in %d machines, and allows %d: see warren invite list", i.ID.Short(), i.Used, i.Terms.Uses))
		}
	}
	if len(m.Records.Members) > 1 && len(m.Sessions) == 0 {
		out = append(out, "no control session is up: new tunnels cannot be introduced until an anchor or a neighbour answers")
	}
	if refused := verdict.Filtered(m.Unsent); len(refused) > 0 {
		text := verdict.Refuses{Unsent: refused}.Words(nil)
		if m.Streams.Blocked != "" {
			text += ": packets go by TCP streams through anchors, more slowly"
		}
		out = append(out, text+"; "+verdict.AllowOut{Unsent: refused[0]}.Words(nil))
	} else if text := m.Streams.warning(); text != "" {
		out = append(out, text)
	}
	for _, p := range m.Streams.Ports {
		if p.Err != nil {
			out = append(out, fmt.Sprintf("TCP port %d is not listened on, for members whose networks drop UDP: %s", p.Port, portTrouble(p.Err)))
		}
	}
	for _, r := range m.Refusals {
		out = append(out, r.Words(names.Of))
	}
	return append(out, m.notGiven(names)...)
}

// warning says how packets go while UDP does not get through, or did not until a moment ago; "" while it does.
func (s Streams) warning() string {
	switch {
	case s.UDP == verdict.UDPReturning && s.Blocked != "":
		return "UDP answers again on this network: packets go by TCP streams until it has done so for some seconds"
	case s.UDP == verdict.UDPReturning:
		return ""
	case s.Blocked != "":
		return "UDP seems to be blocked on this network (" + s.Blocked + "): packets go by TCP streams through anchors, more slowly"
	case s.CutOff != "":
		return "UDP does not get through (" + cmp.Or(s.Reason, "no anchor answers") + "), and no stream to an anchor comes up: " + s.CutOff
	}
	return ""
}

// onlyAdmin warns where all power over the mesh hangs on this one machine. Whoever has not the root key, or has exported it, can do nothing
// about it here.
func (m *Mesh) onlyAdmin(names Names) string {
	if !m.RootKey.Here || !never(m.RootKey.Exported) {
		return ""
	}
	var only []string
	for _, other := range m.Records.Members {
		if other.Admin && other.State == roster.Active {
			only = append(only, names.Of(other.ID))
		}
	}
	if len(only) != 1 {
		return ""
	}
	return fmt.Sprintf("%s is the only admin, and the only root key of the mesh is on this machine: with them the mesh loses whoever can let in or throw out; "+
		"copy the key: sudo warren admin export-root FILE; and make a second admin: sudo warren admin promote NODE", only[0])
}

func portTrouble(err error) string {
	switch {
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit has; sudo warren service install writes it anew"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has it"
	}
	return err.Error()
}
