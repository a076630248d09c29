package agent

import (
	"context"
	"errors"
	"net"
	"os"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/store"
)

// Offline is the power of the root key on a machine whose agent does not run, as when a stolen admin key has put everybody out: the records are
// taken in here, and spread once the agent runs.
type Offline struct {
	power power
	lock  interface{ Close() error }
	store *store.Store
}

var _ api.Power = (*Offline)(nil)

// OpenOffline reads a state directory that no agent holds. It is to be closed.
func OpenOffline(stateDir string) (o *Offline, err error) {
	state, err := place.Load(stateDir)
	if err != nil {
		return nil, err
	}
	o = &Offline{}
	if o.lock, err = place.Lock(stateDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if o.store, _, err = store.Open(state.RecordsPath()); err != nil {
		return nil, err
	}
	own, err := state.OwnRecord(state.MeshID(), state.WireGuard, "")
	if err != nil {
		return nil, err
	}
	o.power.state = state
	o.power.records, err = mesh.New(mesh.Options{Root: state.Root(), Key: state.Key, Chain: state.Chain, Store: o.store, Sessions: nobody{}, Own: own, LANSecret: state.LANSecret()})
	return o, err
}

// Close lets the state directory go.
func (o *Offline) Close() error {
	if o.store != nil {
		o.store.Close()
	}
	return o.lock.Close()
}

// onlyRoot keeps what needs others to hear of it, or this node to be an admin, for the agent.
func onlyRoot(act api.Act) error {
	if act.Root {
		return nil
	}
	return api.ErrNotRunning
}

// Consequences implements api.Power, for the root key only.
func (o *Offline) Consequences(_ context.Context, act api.Act) (api.Consequences, error) {
	if err := onlyRoot(act); err != nil {
		return api.Consequences{}, err
	}
	_, found, err := o.power.foresee(act)
	return found, err
}

// Commit implements api.Power, for the root key only. Nobody can confirm it.
func (o *Offline) Commit(ctx context.Context, req api.Commit, confirm func(api.Confirmation)) error {
	if err := onlyRoot(req.Act); err != nil {
		return err
	}
	req.Wait = false
	return o.power.commit(ctx, req, confirm)
}

// Down is what the state of a mesh says about why its agent does not run.
type Down struct {
	mesh.Ending
	Mesh    string
	Damaged error // of the state; it says what to do
}

// WhyDown reads the state directory of a mesh. Nothing is changed, and nothing is known where it may not be read. The store of a running agent
// is waited for in vain, for some seconds.
func WhyDown(stateDir string) (d Down) {
	state, err := place.Load(stateDir)
	switch {
	case errors.Is(err, os.ErrPermission):
		return d
	case err != nil:
		if _, statErr := os.Stat(stateDir); statErr == nil {
			d.Damaged = err
		}
		return d
	}
	d.Mesh = state.Settings.Mesh
	if items, err := store.Read(state.RecordsPath()); err == nil {
		d.Ending = mesh.EndingOf(state.Chain, items)
	}
	return d
}

// nobody is who can be reached without an agent.
type nobody struct{}

var errNobody = errors.New("the agent does not run")

func (nobody) SendGossip(identity.NodeID, []byte) error { return errNobody }

func (nobody) OpenGossip(context.Context, identity.NodeID) (net.Conn, error) { return nil, errNobody }

func (nobody) OpenSync(context.Context, identity.NodeID) (net.Conn, error) { return nil, errNobody }

func (nobody) Neighbours() []identity.NodeID { return nil }
