package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"warren/config"
	"warren/mesh/api"
	"warren/mesh/place"
	"warren/nat/portmap"
	"warren/nat/ranges"
	"warren/tunnel/osnet"
)

// lookTime bounds what `config check` waits for names and for the agent.
const lookTime = time.Second

// swallowing are the routes of a config file that the agent leaves out, since they would swallow the tunnel or cut this machine off. It
// judges as the agent does, by what can be known without it: endpoints, the networks that this machine is on, where members were met.
func (c configCommand) swallowing(mesh string, file config.Config, places config.Places) config.Errors {
	var routes []ranges.Route
	var at [][2]int
	for i, p := range file.Peers {
		for j, prefix := range p.AllowedIPs {
			routes, at = append(routes, ranges.Route{Prefix: prefix, Peer: p.Name}), append(at, [2]int{i, j})
		}
	}
	if len(routes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	status, _ := c.dirs.client(mesh).Status(ctx) // zero without an agent
	asked := make([]netip.Prefix, len(routes))
	for i, r := range routes {
		asked[i] = r.Prefix
	}
	networks, _ := osnet.Routes(asked...)
	own := []string{status.Self.Interface, file.Interface.Name, osnet.DefaultName}
	networks = slices.DeleteFunc(networks, func(r osnet.Route) bool { return slices.Contains(own, r.Interface) })
	ground := slices.Concat(endpointsOf(ctx, file.Peers), machineGround(networks), c.metAt(mesh, status))
	elsewhere := make([]netip.Prefix, len(networks))
	for i, r := range networks {
		elsewhere[i] = r.Prefix
	}
	refused := ranges.Swallowing(routes, ground, elsewhere)
	var out config.Errors
	for i := range routes {
		if why, no := refused[i]; no {
			out = append(out, places.Allowed(file, at[i][0], at[i][1], why+"; it is left out"))
		}
	}
	return out
}

// tellLeftOut warns of the routes in the config file of a mesh that the agent leaves out.
func (c configCommand) tellLeftOut(mesh string) {
	path, _ := c.dirs.configPath(mesh)
	file, places, err := config.LoadAt(path)
	if err != nil {
		return // there is none, or it was judged before
	}
	for _, left := range c.swallowing(mesh, file, places) {
		fmt.Fprintln(c.con.err, "warning: "+left.Error())
	}
}

// endpointsOf are the addresses of static peers. A name that does not resolve in time has none.
func endpointsOf(ctx context.Context, peers []config.Peer) (out []ranges.Ground) {
	for _, p := range peers {
		host, _, err := net.SplitHostPort(p.Endpoint)
		if err != nil {
			continue // none
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			out = append(out, ranges.Ground{Addr: a, What: "the endpoint of static peer " + p.Name})
		}
	}
	return out
}

// machineGround are the routers, and this machine's own addresses in these networks.
func machineGround(networks []osnet.Route) (out []ranges.Ground) {
	for _, router := range portmap.Gateways() {
		out = append(out, ranges.Ground{Addr: router, What: "the router of this network"})
	}
	own, _ := net.InterfaceAddrs()
	for _, a := range own {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && slices.ContainsFunc(networks, func(r osnet.Route) bool { return r.Prefix == p.Masked() }) {
			out = append(out, ranges.Ground{Addr: p.Addr(), What: "an address of this machine"})
		}
	}
	return out
}

// metAt is where members are reached now, and where this node was admitted.
func (c configCommand) metAt(mesh string, status api.Status) (out []ranges.Ground) {
	add := func(a netip.AddrPort, name string) {
		if ranges.IsPublic(a.Addr()) {
			out = append(out, ranges.Ground{Addr: a.Addr(), What: "the address of " + name})
		}
	}
	for _, p := range status.Peers {
		if !p.Static && p.Path.Address.IsValid() {
			add(p.Path.Address, p.Name)
		}
	}
	if state, err := place.Load(c.dirs.stateDir(mesh)); err == nil {
		for _, a := range state.Settings.Contacts {
			add(a, "a member")
		}
	}
	return out
}

// cannotStart says why an agent with this file would not start on this machine, beyond what is wrong with the file by itself.
func (c configCommand) cannotStart(path string, file config.Config) error {
	if name := file.Interface.Name; name != "" {
		// One that is busy is most likely the running agent's.
		if err := osnet.Claim(name); errors.Is(err, osnet.ErrForeign) {
			return hinted(err, "give [interface] another name in "+path+", or leave it out")
		}
	}
	if mesh, err := c.dirs.pickToRun(); err == nil && mesh == staticMesh {
		return checkStatic(path, file)
	}
	return nil
}
