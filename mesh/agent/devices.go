package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/hosting"
	"warren/mesh/identity"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/mesh/report"
	"warren/mesh/session"
	"warren/mesh/zone"
)

// withDevices reads the settings, and has the devices of the state directory among the static peers. What the file says of a key or a name comes
// first: the file is the person's own.
func withDevices(load func() (node.Settings, error), state *place.State) func() (node.Settings, error) {
	return func() (node.Settings, error) {
		s, err := load()
		if err != nil {
			return s, err
		}
		devices, err := state.Hosted().List()
		if err != nil {
			return s, err
		}
		s.Static = slices.Clone(s.Static)
		for _, d := range devices {
			public, preshared, err := d.Keys()
			if err != nil {
				return s, err
			}
			if slices.ContainsFunc(s.Static, func(p node.StaticPeer) bool { return p.PublicKey == public || p.Name == d.Name }) {
				continue
			}
			peer := node.StaticPeer{Name: d.Name, PublicKey: public, PresharedKey: preshared, Share: true, Device: true, Tags: d.Tags}
			for _, addr := range d.Addrs {
				peer.AllowedIPs = append(peer.AllowedIPs, netip.PrefixFrom(addr, addr.BitLen()))
			}
			s.Static = append(s.Static, peer)
		}
		return s, nil
	}
}

// deviceAddrs are the addresses of a new device: of IPv6 the one that follows from its key, as a node's from its ID; of IPv4 the first of its own that
// nobody has.
func deviceAddrs(view *mesh.View, id identity.MeshID, public wgtypes.Key, noIPv4 bool, taken []netip.Prefix) (out []netip.Addr) {
	own := identity.NodeID(identity.KeyIDOf(public[:]))
	for _, m := range view.Members {
		if m.Addr4.IsValid() {
			taken = append(taken, netip.PrefixFrom(m.Addr4, 32))
		}
		taken = append(taken, m.Routes...)
	}
	if view.Prefix4.IsValid() && !noIPv4 {
		for probe := range identity.MaxProbes {
			addr := identity.Addr4(view.Prefix4, own, probe)
			if !slices.ContainsFunc(taken, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				out = append(out, addr)
				break
			}
		}
	}
	return append(out, identity.Addr6(id, own))
}

// Devices lists those that this node hosts.
func (b *backend) Devices(context.Context) (out api.DeviceList, err error) {
	p, err := b.inMesh()
	if err != nil {
		return out, err
	}
	devices, err := p.state.Hosted().List()
	if err != nil {
		return out, err
	}
	stats, err := b.tunnel.Snapshot()
	if err != nil {
		return out, err
	}
	for _, d := range devices {
		shown := api.Device{Name: d.Name, PublicKey: d.PublicKey, Addresses: d.Addrs, Tags: append([]string{}, d.Tags...), Created: d.Created}
		if public, _, err := d.Keys(); err == nil && !stats[public].LastHandshake.IsZero() {
			shown.LastHandshake = new(stats[public].LastHandshake)
		}
		out.Devices = append(out.Devices, shown)
	}
	return out, nil
}

// AddDevice keeps a device in the state directory, and has the hub read the settings again.
func (b *backend) AddDevice(ctx context.Context, req api.DeviceRequest) (out api.DeviceSetup, err error) {
	p, err := b.inMesh()
	if err != nil {
		return out, err
	}
	bad := func(err error) error { return &api.Error{Code: api.CodeBadRequest, Message: "device: " + err.Error()} }
	if err := place.ValidName(req.Name); err != nil {
		return out, bad(err)
	}
	if err := identity.CheckTags(req.Tags); err != nil {
		return out, bad(err)
	}
	public, err := wgtypes.ParseKey(req.PublicKey)
	if err != nil {
		return out, bad(fmt.Errorf("public key: %w", err))
	}
	if req.Via != "" {
		via, err := report.Find(p.records.View().Members, p.state.NodeID(), zone.Short(p.records.View().Domain, req.Via))
		if err != nil {
			return out, err
		}
		if via.ID != p.state.NodeID() {
			return b.hostedBy(ctx, p, via, req, public)
		}
	}
	board, view := b.hub.Board(), p.records.View()
	if slices.ContainsFunc(view.Members, func(m mesh.Member) bool { return m.Name == req.Name && m.State == mesh.Active }) {
		return out, refused("%s is a member already: choose another name for the device", req.Name)
	}
	var taken []netip.Prefix
	for _, s := range board.Settings.Static {
		if s.Name == req.Name || s.PublicKey == public {
			return out, refused("this node has the peer %s already: warren device remove %s, or choose another name", s.Name, s.Name)
		}
		taken = append(taken, s.AllowedIPs...)
	}
	endpoint, strangers, err := b.endpointFor(p, req.Endpoint)
	if err != nil {
		return out, err
	}
	preshared, err := wgtypes.GenerateKey()
	if err != nil {
		return out, fmt.Errorf("make preshared key: %w", err)
	}
	device := place.Device{
		Name: req.Name, PublicKey: public.String(), PresharedKey: preshared.String(), Tags: req.Tags, Created: time.Now().UTC().Truncate(time.Second),
		Addrs: deviceAddrs(view, p.state.MeshID(), public, board.NoIPv4, taken),
	}
	if err := p.state.Hosted().Add(device); errors.Is(err, place.ErrDevices) {
		return out, refused("%v", err)
	} else if err != nil {
		return out, err
	}
	if _, err := b.Reload(ctx); err != nil {
		_, undone := p.state.Hosted().Remove(device.Name) // nobody has its configuration
		return out, errors.Join(err, undone)
	}
	return b.setup(p, device, endpoint, strangers), nil
}

// setup is what the configuration of a device needs. It holds its preshared key.
func (b *backend) setup(p *parts, d place.Device, endpoint string, strangers bool) api.DeviceSetup {
	view := p.records.View()
	out := api.DeviceSetup{
		Name: d.Name, Addresses: d.Addrs, PublicKey: b.public.String(), PresharedKey: d.PresharedKey, Endpoint: endpoint, Public: strangers,
		DNS: append([]netip.Addr{}, p.naming.dns.Snapshot().Addrs...), Domain: view.Domain,
	}
	for _, prefix := range []netip.Prefix{view.Prefix4, view.Prefix6} {
		if prefix.IsValid() && !(b.hub.Board().NoIPv4 && prefix.Addr().Is4()) {
			out.AllowedIPs = append(out.AllowedIPs, prefix)
		}
	}
	return out
}

// Device shows how one that is hosted is set up.
func (b *backend) Device(_ context.Context, req api.DeviceName) (out api.DeviceSetup, err error) {
	p, err := b.inMesh()
	if err != nil {
		return out, err
	}
	devices, err := p.state.Hosted().List()
	if err != nil {
		return out, err
	}
	i := slices.IndexFunc(devices, func(d place.Device) bool { return d.Name == req.Name })
	if i < 0 {
		return out, noDevice(req.Name)
	}
	endpoint, strangers, err := b.endpointFor(p, req.Endpoint)
	if err != nil {
		return out, err
	}
	return b.setup(p, devices[i], endpoint, strangers), nil
}

func noDevice(name string) error {
	return &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("this node hosts no device called %q", name), Hint: "see: warren device list"}
}

// hostedBy has another member host a device. It is asked over the session with it and by no other way: the answer holds the preshared key, and it has
// to know for sure that an admin asks.
func (b *backend) hostedBy(ctx context.Context, p *parts, via mesh.Member, req api.DeviceRequest, public wgtypes.Key) (out api.DeviceSetup, err error) {
	if err := p.power().mayNot("have another member host a device"); err != nil {
		return out, err
	}
	c, err := p.sessions.OpenDirect(ctx, via.ID, session.ProtoHost)
	if err != nil {
		return out, &api.Error{Code: api.CodeRefused, Message: fmt.Sprintf("this node has no session with %s just now, to ask it by", via.Name), Hint: fmt.Sprintf("on %s say: sudo warren device add %s", via.Name, req.Name)}
	}
	a, err := hosting.Ask(c, hosting.Request{Name: req.Name, PublicKey: public, Tags: req.Tags, Endpoint: req.Endpoint})
	switch {
	case err != nil:
		return out, refused("%s does not answer: %v; it may be of a version that hosts nothing for others", via.Name, err)
	case a.Refusal != "":
		return out, refused("%s refuses: %s", via.Name, a.Refusal)
	}
	out = b.setup(p, place.Device{Name: req.Name, Addrs: a.Addrs, PresharedKey: wgtypes.Key(a.PresharedKey).String()}, a.Endpoint, a.Public)
	out.PublicKey, out.DNS = wgtypes.Key(a.PublicKey).String(), a.DNS
	return out, nil
}

// hostFor answers an admin that has this node host a device. session calls it, in a goroutine of the stream's own; from is proven.
func (b *backend) hostFor(from identity.NodeID, c net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), hostTime)
	defer cancel()
	err := hosting.Serve(c, func(r hosting.Request) (hosting.Answer, error) {
		if m, ok := b.parts.members.Record(from); !ok || m.State != mesh.Active || !m.Admin {
			return hosting.Answer{}, errors.New("only admins have others host devices")
		}
		setup, err := b.AddDevice(ctx, api.DeviceRequest{Name: r.Name, PublicKey: wgtypes.Key(r.PublicKey).String(), Tags: r.Tags, Endpoint: r.Endpoint})
		if err != nil {
			return hosting.Answer{}, err
		}
		preshared, err := wgtypes.ParseKey(setup.PresharedKey)
		return hosting.Answer{Addrs: setup.Addresses, PublicKey: b.public, PresharedKey: preshared, Endpoint: setup.Endpoint, Public: setup.Public, DNS: setup.DNS}, err
	})
	b.log.Info("device asked for", "id", from.Short(), "error", err)
}

// hostTime bounds what an admin's request may take here.
const hostTime = 10 * time.Second

// endpointFor is where a device reaches this node: what was asked for, what the settings name, where strangers reach it, else an address of the LAN.
func (b *backend) endpointFor(p *parts, asked string) (endpoint string, strangers bool, err error) {
	own, _ := p.records.View().Member(p.state.NodeID())
	settings := b.hub.Board().Settings.Endpoints
	if len(settings) == 0 {
		settings = p.state.Settings.Endpoints
	}
	switch {
	case asked != "":
		return asked, true, nil
	case len(settings) > 0:
		return settings[0], true, nil
	case len(own.Record.Endpoints) > 0:
		// IPv4 first: a phone's network has it more often.
		return slices.MinFunc(own.Record.Endpoints, func(a, b netip.AddrPort) int { return cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()) }).String(), true, nil
	}
	hosts := p.standing.Snapshot().Hosts
	if len(hosts) == 0 {
		return "", false, &api.Error{Code: api.CodeRefused, Message: "it is not known where a device reaches this node", Hint: "say it: --endpoint HOST:PORT"}
	}
	return netip.AddrPortFrom(hosts[0], b.socket.Port()).String(), false, nil
}

// RemoveDevice forgets a device, and has the hub read the settings again.
func (b *backend) RemoveDevice(ctx context.Context, req api.DeviceName) error {
	p, err := b.inMesh()
	if err != nil {
		return err
	}
	found, err := p.state.Hosted().Remove(req.Name)
	if err != nil {
		return err
	}
	if !found {
		return noDevice(req.Name)
	}
	_, err = b.Reload(ctx)
	return err
}
