package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/mesh/agent"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/packaging"

	"github.com/miekg/dns"

	ours "warren/mesh/dns"
	"warren/mesh/zone"
)

// world is a machine on which conversations with warren take place: directories, a service manager, and an agent
// that answers on a real socket out of what the test says.
type world struct {
	t      *testing.T
	dir    string
	dirs   dirs
	noInit bool // no service manager

	down    agent.Down // what the state says of why no agent runs
	exposed error      // why the program is not root's alone

	mu      sync.Mutex
	status  api.Status
	net     string                               // what netcheck finds, see exampleNetcheck
	key     ed25519.PublicKey                    // of whom is to be promoted
	changed bool                                 // what would come of an act, since it was shown
	asks    bool                                 // standard input is a terminal: questions are asked
	refuse  *api.Error                           // what the agent answers to everything that changes
	pending []string                             // settings that wait for the next start
	stop    func()                               // of the running agent; nil when none runs
	enabled bool                                 // the service
	byHand  bool                                 // the running agent was not started by the service
	ran     *agent.Options                       // of the last agent in the foreground
	during  func(context.Context, agent.Options) // what happens while the agent runs in the foreground
	runErr  error                                // what the agent in the foreground ends with

	committed []api.Commit // what the agent was asked to do
}

var exampleTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	w := &world{t: t, dir: dir, status: exampleStatus(),
		dirs: dirs{stateRoot: filepath.Join(dir, "state"), runDir: filepath.Join(dir, "run"), configDir: filepath.Join(dir, "etc")}}
	for _, sub := range []string{w.dirs.stateRoot, w.dirs.configDir} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(w.agentDown)
	return w
}

func exampleStatus() api.Status {
	shake := exampleTime.Add(-5 * time.Second)
	addr, addrPort, prefix := netip.MustParseAddr, netip.MustParseAddrPort, netip.MustParsePrefix
	expires := exampleTime.Add(23*time.Hour + 30*time.Minute)
	return api.Status{
		Schema: api.Schema, Time: exampleTime, Version: "1.0.0", State: api.StateReady, Since: exampleTime.Add(-25 * time.Hour),
		Mesh: &api.Mesh{Name: "home", Domain: "home.internal", ID: "00112233445566778899aabbccddeeff", Members: 5, Records: 9,
			Prefix4: prefix("100.71.0.0/16"), Prefix6: prefix("fd00:1122:3344::/48")},
		Names: &api.Names{Using: "resolved", Why: "systemd-resolved asks the agent", Served: []netip.Addr{addr("100.71.0.1"), addr("fd00:1122:3344::1")}},
		Self: api.Self{ID: "aaaaaaaaaabbbbbbbbbb", Name: "alpha", Admin: true, Interface: "warren0", Port: 9277, PublicKey: "k0=", Anchor: true,
			Addresses: []netip.Addr{addr("100.71.0.1"), addr("fd00:1122:3344::1")}},
		Peers: []api.Peer{
			{ID: "ivjm3k2qpaxxxxxxxxxx", Name: "beta", State: api.PeerUp, LatencyMS: 12.4, RxBytes: 3 << 20, TxBytes: 4097, Version: "1.0.0",
				Addresses: []netip.Addr{addr("100.71.0.2"), addr("fd00:1122:3344::2")}, Life: api.Life{LastHandshake: &shake, LastHeard: &shake}, Admin: true, Anchor: true,
				Path: api.Path{Kind: api.PathDirect, Address: addrPort("198.51.100.7:41641")}, Tags: []string{"server"}, Origin: api.Origin{AdmittedBy: "alpha", Power: api.PowerPromoted}},
			{ID: "cccccccccc2222222222", Name: "gamma", State: api.PeerUp, LatencyMS: 0.42, RxBytes: 12, Version: "1.0.0", Origin: api.Origin{AdmittedBy: "beta", Power: api.PowerDemoted},
				Addresses: []netip.Addr{addr("100.71.0.3")}, Life: api.Life{LastHandshake: &shake, LastHeard: &shake},
				Path: api.Path{Kind: api.PathRelay, Address: addrPort("[2001:db8::1]:9277"), Via: "beta"}},
			{ID: "dddddddddd3333333333", Name: "delta\x1b[2J", State: api.PeerDown, Reason: "none of its anchors answers\x07", Origin: api.Origin{AdmittedBy: "beta"},
				Addresses: []netip.Addr{addr("100.71.0.4")}},
			{ID: "eeeeeeeeee4444444444", Name: "epsilon", State: api.PeerLeft, Origin: api.Origin{AdmittedBy: "beta"}},
			{Name: "phone", Static: true, State: api.PeerIdle, Reason: "no handshake yet", Routes: []netip.Prefix{prefix("100.70.0.9/32")}},
		},
		Admins: []api.Admin{
			{ID: "aaaaaaaaaabbbbbbbbbb", Name: "alpha", Address: addr("100.71.0.1"), Since: exampleTime.Add(-25 * time.Hour), By: theRoot},
			{ID: "ivjm3k2qpaxxxxxxxxxx", Name: "beta", Address: addr("100.71.0.2"), Since: exampleTime, By: "alpha", Power: api.PowerPromoted},
		},
		RootKey: &api.RootKey{Here: true},
		Invites: []api.Invited{{ID: "ffffffffff5555555555", Uses: 3, Used: 1, Expires: &expires, Tags: []string{"lab"}, By: "alpha"}},
		Revoked: []api.Revoked{{ID: "gggggggggg6666666666", Kind: "node", Scope: api.ScopeWhole, Name: "old", Time: exampleTime, By: "alpha", Reason: "stolen"}},
	}
}

// say runs one command line and returns what it printed and its exit status.
func (w *world) say(stdin string, args ...string) (string, int) {
	var out bytes.Buffer
	code := w.with(&console{in: bytes.NewBufferString(stdin), out: &out, err: &out}).run(w.t.Context(), args)
	return out.String(), code
}

// with is the program on this machine.
func (w *world) with(con *console) *app {
	a := newApp()
	a.console = con
	a.console.recognise = recogniseExample
	if w.asks {
		a.console.ask = a.console.answer
	}
	a.now = func() time.Time { return exampleTime }
	a.usual = w.dirs
	a.executable = func() (string, error) { return packaging.Binary, nil }
	a.owned = func(string) error { return w.exposed }
	a.service = func() (packaging.Service, error) {
		if w.noInit {
			return nil, packaging.ErrNone
		}
		return (*fakeService)(w), nil
	}
	a.down = func(string) agent.Down { return w.down }
	a.asks = asks{exchange: w.exchange, hosts: w.hosts, addrs: func(context.Context, string) ([]string, error) { return []string{"beta.home.internal."}, nil }}
	a.names = func(string) error { return nil }
	a.create, a.join, a.leave, a.agent = w.create, w.join, w.leave, w.agent
	return a
}

// exchange answers as an agent does.
func (w *world) exchange(_ context.Context, q *dns.Msg, _ netip.AddrPort) (*dns.Msg, error) {
	o := zone.Options{Domain: "home.internal", Self: "alpha", Networks: []netip.Prefix{w.status.Mesh.Prefix4, w.status.Mesh.Prefix6}}
	for _, p := range parties(w.status) {
		o.Hosts = append(o.Hosts, zone.Host{Name: p.Name, Addrs: p.Addresses})
	}
	raw, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if raw, err = ours.Answer(zone.New(o), raw, true); err != nil {
		return nil, err
	}
	reply := &dns.Msg{}
	return reply, reply.Unpack(raw)
}

// hosts is a resolver that knows one name of the mesh.
func (w *world) hosts(_ context.Context, name string) ([]string, error) {
	if name == "beta.home.internal" {
		return []string{"100.71.0.2", "fd00:1122:3344::2"}, nil
	}
	return nil, errors.New("no such host")
}

func (w *world) membership(mesh, name string) (place.Membership, error) {
	state := w.dirs.stateDir(mesh)
	if err := w.makeState(mesh); err != nil {
		return place.Membership{}, err
	}
	return place.Membership{Mesh: mesh, StateDir: state, Name: name, Addr4: netip.MustParseAddr("100.71.0.1"), Addr6: netip.MustParseAddr("fd00:1122:3344::1")}, nil
}

// makeState makes a state directory with something in it.
func (w *world) makeState(mesh string) error {
	if err := os.Mkdir(w.dirs.stateDir(mesh), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dirs.stateDir(mesh), "lock"), nil, 0o600)
}

func (w *world) create(o place.CreateOptions) (place.Membership, error) {
	return w.membership(o.Mesh, o.Name)
}

func (w *world) join(_ context.Context, o place.JoinOptions, progress func(place.JoinProgress)) (place.Membership, error) {
	if o.Token != "warren1good\n" && o.Token != "warren1good" {
		return place.Membership{}, errors.New("token: mistyped")
	}
	if _, err := os.Stat(w.dirs.stateDir("home")); err == nil {
		os.RemoveAll(w.dirs.stateDir("home"))
		made, err := w.membership("home", "alpha")
		made.Already = true
		return made, err
	}
	progress(place.JoinProgress{Stage: place.StageContacting, Anchor: netip.MustParseAddrPort("203.0.113.5:9277")})
	progress(place.JoinProgress{Stage: place.StageAdmitted, Mesh: "home", By: "beta"})
	progress(place.JoinProgress{Stage: place.StageSynced, Mesh: "home", Records: 9})
	return w.membership("home", o.Name)
}

func (w *world) leave(o place.LeaveOptions) error {
	if root := filepath.Dir(o.StateDir); place.Default(root) == filepath.Base(o.StateDir) {
		place.SetDefault(root, "")
	}
	return os.RemoveAll(o.StateDir)
}

func (w *world) agent(ctx context.Context, o agent.Options) error {
	w.ran = &o
	if w.during != nil {
		w.during(ctx, o)
	}
	if _, err := o.Load(); err != nil {
		return err
	}
	o.Ready()
	return w.runErr
}

// agentUp serves the API for the mesh home on the socket of this machine.
func (w *world) agentUp(mesh string) {
	l, err := api.Listen(w.dirs.socket(mesh), "")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := api.NewServer((*fakeAgent)(w), slog.New(slog.DiscardHandler)).Serve(ctx, l); err != nil {
			w.t.Errorf("serve: %v", err)
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
}

func (w *world) agentDown() {
	w.mu.Lock()
	stop := w.stop
	w.stop = nil
	w.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (w *world) running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stop != nil
}

// fakeAgent is the Backend of the world's agent.
type fakeAgent world

func (f *fakeAgent) change() error {
	if f.refuse != nil {
		return f.refuse
	}
	return nil
}

func (f *fakeAgent) Status(context.Context) (api.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, nil
}

func (f *fakeAgent) Ping(_ context.Context, req api.PingRequest, reply func(api.PingReply)) error {
	f.mu.Lock()
	peers := f.status.Peers
	f.mu.Unlock()
	for _, p := range peers {
		if !strings.HasPrefix(p.Name, req.Peer) || req.Peer == "" {
			continue
		}
		for seq := range req.Count {
			r := api.PingReply{Seq: seq + 1, Name: p.Name, Address: p.Addresses[0], Path: p.Path, LatencyMS: p.LatencyMS}
			if p.Reason != "" {
				r.Error = p.Reason
			}
			reply(r)
		}
		return nil
	}
	return &api.Error{Code: api.CodeNotFound, Message: "no peer " + req.Peer, Hint: "see: warren peers"}
}

func (f *fakeAgent) Invite(_ context.Context, req api.InviteRequest) (api.Invite, error) {
	return api.Invite{ID: "hhhhhhhhhh7777777777", Token: "warren1token", Reach: api.ReachNone, Uses: req.Uses, Admin: req.Admin, Tags: req.Tags,
		Expires: exampleTime.Add(time.Duration(req.ValidForMS) * time.Millisecond)}, f.change()
}

// Consequences knows beta, an admin on whom others depend, gamma, on whom nobody does, and the invite of the example.
func (f *fakeAgent) Consequences(_ context.Context, act api.Act) (api.Consequences, error) {
	if err := f.change(); err != nil {
		return api.Consequences{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	party := func(i int) api.Party {
		p := f.status.Peers[i]
		return api.Party{ID: p.ID, Name: p.Name, Address: p.Addresses[0], Admin: p.Admin}
	}
	c := api.Consequences{Schema: api.Schema, Act: act, By: "alpha", Shown: "as shown"}
	gamma, delta := party(1), party(2)
	switch {
	case act.Invite != "":
		c.Act.Invite = f.status.Invites[0].ID
		c.Target = api.Party{ID: c.Act.Invite}
		gamma.How = "came by it"
		c.Others = []api.Party{gamma}
	case act.Kind == api.ActPromote || act.Node == "gamma":
		c.Target, c.Key = gamma, f.key
		if len(f.key) > 0 {
			c.Target.ID = identity.NodeIDOf(f.key).String()
		}
	default:
		gamma.How, delta.How = "admitted by beta", "came by an invite of beta"
		c.Target, c.Others, c.Revocations = party(0), []api.Party{gamma, delta}, f.status.Revoked
		c.Revocations[0].By, c.Ends = "beta", f.status.Invites
		c.Remarks = []string{"no admin is left then: only the root key can make one again"}
		if act.Kind == api.ActRevoke && !act.KeepInvite {
			c.Came = &api.CameBy{ID: "kkkkkkkkkk8888888888", Stay: []api.Party{{ID: "llllllllll9999999999", Name: "zeta", Address: netip.MustParseAddr("100.71.0.6"), How: "came by it"}}}
		}
	}
	return c, nil
}

func (f *fakeAgent) Commit(_ context.Context, req api.Commit, confirm func(api.Confirmation)) error {
	f.mu.Lock()
	f.committed = append(f.committed, req)
	f.mu.Unlock()
	if err := f.change(); err != nil {
		return err
	}
	if f.changed {
		return &api.Error{Code: api.CodeChanged, Message: "something else would come of it now than what was shown"}
	}
	found, err := f.Consequences(context.Background(), req.Act)
	if err != nil {
		return err
	}
	target, id := found.Target.Name, found.Target.ID
	if req.Act.Invite != "" {
		target = "invite " + short(id)
	}
	confirm(api.Confirmation{Target: target, ID: id, Waiting: 2})
	if req.Wait {
		confirm(api.Confirmation{Target: target, Member: "gamma", Waiting: 1})
		confirm(api.Confirmation{Target: target, Member: "delta", Waiting: 0})
	}
	return nil
}

func (f *fakeAgent) Leave(_ context.Context, req api.LeaveRequest) error {
	if err := f.change(); err != nil && !req.Force {
		return err
	}
	go (*world)(f).agentDown() // as the real one, it ends after it has answered
	return nil
}

func (f *fakeAgent) Devices(context.Context) (api.DeviceList, error) {
	return api.DeviceList{Devices: []api.Device{{Name: "phone", Addresses: []netip.Addr{netip.MustParseAddr("100.71.0.99")}, Tags: []string{"lan"}}}}, nil
}

func (f *fakeAgent) Device(ctx context.Context, req api.DeviceName) (api.DeviceSetup, error) {
	return f.AddDevice(ctx, api.DeviceRequest{Name: req.Name, Endpoint: req.Endpoint})
}

func (f *fakeAgent) AddDevice(_ context.Context, req api.DeviceRequest) (api.DeviceSetup, error) {
	if err := f.change(); err != nil {
		return api.DeviceSetup{}, err
	}
	return api.DeviceSetup{Name: req.Name, Addresses: []netip.Addr{netip.MustParseAddr("100.71.0.99")}, PublicKey: "k0=", PresharedKey: "p0=", Endpoint: "vpn.example.org:9277", Public: true,
		AllowedIPs: []netip.Prefix{f.status.Mesh.Prefix4}, DNS: []netip.Addr{f.status.Self.Addresses[0]}, Domain: "home.internal"}, nil
}

func (f *fakeAgent) RemoveDevice(context.Context, api.DeviceName) error { return f.change() }

func (f *fakeAgent) Rename(_ context.Context, req api.RenameRequest) error {
	if err := f.change(); err != nil {
		return err
	}
	f.status.Self.Name = req.Name
	return nil
}

func (f *fakeAgent) Reload(context.Context) (api.Reloaded, error) {
	return api.Reloaded{Schema: api.Schema, Pending: f.pending}, f.change()
}

// fakeService is the service manager of the world.
type fakeService world

func (f *fakeService) Install(context.Context, string, string) error { f.enabled = true; return nil }

func (f *fakeService) Uninstall(context.Context, string) error {
	f.enabled = false
	(*world)(f).agentDown()
	return nil
}

func (f *fakeService) Start(_ context.Context, mesh string, again bool) error {
	if again {
		(*world)(f).agentDown()
	}
	if f.runErr != nil {
		return f.runErr
	}
	(*world)(f).agentUp(mesh)
	return nil
}

func (f *fakeService) Stop(context.Context, string) error {
	(*world)(f).agentDown()
	return nil
}

func (f *fakeService) Status(context.Context, string) (packaging.State, error) {
	running := (*world)(f).running() && !f.byHand
	detail := "inactive (dead)"
	if running {
		detail = "active (running)"
	}
	return packaging.State{Installed: f.enabled, Enabled: f.enabled, Running: running, Detail: detail}, nil
}

func (f *fakeService) Logs(mesh string, lines int, follow bool) []string {
	return []string{"journalctl", "-u", "warren@" + mesh, fmt.Sprint(lines), fmt.Sprint(follow)}
}

func (w *world) write(name, text string, mode fs.FileMode) {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
}

// recogniseExample has two tokens that stand for all others; whatever else comes is looked at as the program does.
func recogniseExample(text string) (string, error) {
	switch {
	case strings.Contains(text, "warren1good"):
		return "warren1good", nil
	case strings.Contains(text, "warren1bad"):
		return "", errors.New("token: mistyped")
	}
	return tokenIn(text)
}
