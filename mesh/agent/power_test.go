package agent

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh"
	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/record"
	"warren/mesh/report"
	"warren/mesh/store"
)

// powers is a mesh of nodes whose agents do not run: their records go from one to the other when a test says so.
type powers struct {
	t    *testing.T
	root identity.Authority
	dir  string // state directory of the founder
	all  []*powerNode
}

type powerNode struct {
	power
	name  string
	w     *powers
	store *store.Store
	own   record.Node
}

func newPowers(t *testing.T) (w *powers, founder *powerNode) {
	t.Helper()
	made, err := place.Create(place.CreateOptions{Mesh: "home", StateRoot: t.TempDir(), Name: "founder"})
	if err != nil {
		t.Fatal(err)
	}
	w = &powers{t: t, dir: made.StateDir}
	if w.root, err = place.OwnRoot(made.StateDir); err != nil {
		t.Fatal(err)
	}
	state, err := place.Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	return w, w.node("founder", state)
}

// node starts one, with what its store holds.
func (w *powers) node(name string, state *place.State) *powerNode {
	w.t.Helper()
	n := &powerNode{name: name, w: w, power: power{state: state}}
	own, err := state.OwnRecord(state.MeshID(), state.WireGuard, "1")
	if err != nil {
		w.t.Fatal(err)
	}
	n.own, n.own.Name = own, name
	n.open()
	if err := n.begin(); err != nil {
		w.t.Fatal(err)
	}
	w.all = append(w.all, n)
	w.t.Cleanup(n.stop)
	return n
}

func (n *powerNode) open() {
	n.w.t.Helper()
	var err error
	if n.store, _, err = store.Open(filepath.Join(n.state.Dir, "records.db")); err != nil {
		n.w.t.Fatal(err)
	}
}

// begin is the start of a run, stop its end.
func (n *powerNode) begin() (err error) {
	n.own.Instance[0]++
	n.records, err = mesh.New(mesh.Options{
		Root: n.state.Root(), Key: n.state.Key, Chain: n.state.Chain, Store: n.store, Sessions: nobody{}, Own: n.own, LANSecret: n.state.LANSecret(),
	})
	return err
}

func (n *powerNode) stop() {
	if n.store != nil {
		n.store.Close()
		n.store = nil
	}
}

// join has a new node in by an invite of one member, through another one.
func (w *powers) join(name string, inviter, via *powerNode) *powerNode {
	w.t.Helper()
	seed, invite, err := inviter.records.Power().Invite(identity.InviteTerms{Uses: 1, Expires: time.Now().Add(time.Hour)}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return w.joinWith(name, seed, invite, inviter, via)
}

func (w *powers) joinWith(name string, seed [32]byte, invite *x509.Certificate, inviter, via *powerNode) *powerNode {
	w.t.Helper()
	w.meet(inviter, via)
	key := identity.GenerateKey()
	leaf, err := identity.NewNode(identity.Authority{Cert: invite, Key: ed25519.NewKeyFromSeed(seed[:])}, key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	admission, err := via.records.Admission().Admit(leaf)
	if err != nil {
		w.t.Fatal(err)
	}
	chain, err := via.records.Admission().InviteChain(identity.KeyIDOfCert(invite))
	if err != nil {
		w.t.Fatal(err)
	}
	if chain[len(chain)-1] != w.root.Cert && !chain[len(chain)-1].Equal(w.root.Cert) {
		chain = append(chain, w.root.Cert)
	}
	state := &place.State{
		Dir: w.t.TempDir(), Key: key, Chain: append([]*x509.Certificate{leaf}, chain...), WireGuard: [32]byte(identity.GenerateKey().Seed()),
		Settings: place.Settings{Name: name, Admission: &admission},
	}
	state.WireGuard[0], state.WireGuard[31] = state.WireGuard[0]&^7, state.WireGuard[31]&^0x80|0x40
	state.Sealing = state.WireGuard
	n := w.node(name, state)
	w.meet(n, via)
	return n
}

// meet has nodes exchange what they have, the root's word first: real nodes do not pass on what that has made void, but it may lie in the
// stores that are read here.
func (w *powers) meet(nodes ...*powerNode) {
	w.t.Helper()
	root := identity.KeyIDOfCert(w.root.Cert)
	for range 2 {
		for _, from := range nodes {
			items, err := from.store.Load()
			if err != nil {
				w.t.Fatal(err)
			}
			var first, rest []record.Signed
			for _, item := range items {
				signed, err := record.Unmarshal(item.Value)
				switch {
				case err != nil:
					w.t.Fatal(err)
				case signed.Signer == root:
					first = append(first, signed)
				default:
					rest = append(rest, signed)
				}
			}
			for _, to := range nodes {
				for _, signed := range append(first, rest...) {
					if to != from {
						_ = to.records.Add(signed) // that it is known already is no news
					}
				}
			}
		}
	}
}

// do does an act in both steps, keeping what is to be kept.
func (n *powerNode) do(act api.Act, with api.Commit) error {
	_, found, err := n.foresee(act)
	if err != nil {
		return err
	}
	with.Act, with.Shown = act, found.Shown
	if act.Root {
		with.Signed = n.w.signed(found, with)
	}
	return n.commit(n.w.t.Context(), with, func(api.Confirmation) {})
}

// signed is what the holder of the root key makes of it.
func (w *powers) signed(found api.Consequences, with api.Commit) (out [][]byte) {
	w.t.Helper()
	var records []record.Signed
	if found.Act.Kind == api.ActPromote {
		cert, err := identity.NewPromotion(w.root, found.Key, time.Now())
		if err != nil {
			w.t.Fatal(err)
		}
		records = append(records, record.NewCertificate(cert))
	} else {
		orders, err := report.Orders(found, with, time.Now())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, order := range orders {
			signed, err := record.SignRevocation(w.all[0].state.MeshID(), order, w.root.Key)
			if err != nil {
				w.t.Fatal(err)
			}
			records = append(records, signed)
		}
	}
	for _, signed := range records {
		encoded, err := signed.Marshal()
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, encoded)
	}
	return out
}

// see checks who is a member, and who an admin of them (with a star), as a node sees it.
func (n *powerNode) see(want string) {
	n.w.t.Helper()
	var got []string
	for _, m := range n.records.View().Members {
		name := m.Name
		if m.Admin {
			name += "*"
		}
		got = append(got, name)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != want {
		n.w.t.Errorf("%s: got members %q, want %q", n.name, got, want)
	}
}

// ended says why a node has stopped, "" when it has not.
func (n *powerNode) ended() string {
	select {
	case err := <-n.records.Fatal():
		return err.Error()
	default:
		return ""
	}
}

func code(err error) api.Code {
	if no, ok := errors.AsType[*api.Error](err); ok {
		return no.Code
	}
	return ""
}

func revoke(name string) api.Act  { return api.Act{Kind: api.ActRevoke, Node: name} }
func demote(name string) api.Act  { return api.Act{Kind: api.ActDemote, Node: name} }
func promote(name string) api.Act { return api.Act{Kind: api.ActPromote, Node: name} }

func byRoot(act api.Act) api.Act { act.Root = true; return act }

var keep, keepButUndo, cascade = api.Commit{Keep: true, KeepRevoked: true}, api.Commit{Keep: true}, api.Commit{}

// A promoted member lets others in and throws them out; its chain is one that others verify. A demoted one says why it may not, and does so
// for good.
func TestPromotedAndDemoted(t *testing.T) {
	w, founder := newPowers(t)
	a := w.join("a", founder, founder)
	for _, err := range []error{a.mayNot("invite"), a.do(revoke("founder"), keep), a.do(promote("a"), keep)} {
		if code(err) != api.CodeRefused || !strings.Contains(err.Error(), "only an admin can") {
			t.Errorf("a member: got %v, want a refusal", err)
		}
	}
	if err := founder.do(promote("a"), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a)
	founder.see("a* founder*")
	if secret := a.records.Own().LANSecret; secret != a.state.LANSecret() {
		t.Error("a is an admin, and its record shows no LAN secret")
	}
	b := w.join("b", a, founder)
	c := w.join("c", a, a)
	w.meet(founder, a, b, c)
	founder.see("a* b c founder*")
	for _, n := range []*powerNode{b, c} {
		if _, err := founder.records.VerifyChain(n.state.Chain); err != nil {
			t.Errorf("the chain of %s: got %v", n.name, err)
		}
	}
	admins := founder.records.View().Admins
	if len(admins) != 2 || admins[1].ID != a.state.NodeID() || !admins[1].Promoted || admins[1].By != identity.KeyID(founder.state.NodeID()) || time.Since(admins[1].Since) > time.Minute {
		t.Errorf("got admins %+v, want a, promoted by the founder just now", admins)
	}
	if err := a.do(revoke("c"), keep); err != nil {
		t.Errorf("a revokes c: got %v", err)
	}
	w.meet(founder, a, b)
	_, found, err := founder.foresee(demote("a"))
	if err != nil || len(found.Others) != 2 || found.Others[0].Name != "b" || found.Others[0].How != "came by an invite of a" || found.Others[1].Name != "c" || !found.Others[1].Out {
		t.Errorf("demote a: got %+v, %v, want that b came by its invite, and c, which is out", found.Others, err)
	}
	if len(found.Revocations) != 2 || !slices.ContainsFunc(found.Revocations, func(r api.Revoked) bool { return r.Name == "c" }) || len(found.Ends) != 0 {
		t.Errorf("demote a: got %+v and %+v, want its word on c and on the invite by which that came", found.Revocations, found.Ends)
	}
	if err := founder.do(demote("a"), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a, b)
	founder.see("a b founder*")
	if no := a.mayNot("invite"); code(no) != api.CodeRefused || !strings.Contains(no.Error(), "demoted by founder") {
		t.Errorf("a demoted one: got %v, want that, by whom", no)
	}
	if _, _, err := a.records.Power().Invite(identity.InviteTerms{Uses: 1, Expires: time.Now().Add(time.Hour)}, time.Now()); !errors.Is(err, mesh.ErrNoAdmin) {
		t.Errorf("a demoted one invites: got %v, want %v", err, mesh.ErrNoAdmin)
	}
	if err := founder.do(promote("a"), keep); code(err) != api.CodeRefused || !strings.Contains(err.Error(), "for good") {
		t.Errorf("promoted again: got %v, want a refusal", err)
	}
	if a.records.Own().LANSecret != [16]byte{} {
		t.Error("a is no admin any more, and its record shows a LAN secret")
	}
	if text := a.ended() + b.ended(); text != "" {
		t.Errorf("got %q, want a and b to be members still", text)
	}
}

// A stolen admin key throws the founder out. The root's word, out of a file on another machine, throws the thief out and brings the
// founder back, whose agent asks again when it is started.
func TestStolenAdminKey(t *testing.T) {
	w, founder := newPowers(t)
	a, b := w.join("a", founder, founder), w.join("b", founder, founder)
	if err := founder.do(promote("a"), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a, b)
	guest := w.join("guest", a, b)
	w.meet(founder, a, b, guest)
	if err := a.do(revoke("founder"), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a, b, guest)
	b.see("a b guest") // whom it has put out had made it an admin
	if text := founder.ended(); !strings.Contains(text, "revoked by a") {
		t.Errorf("the founder: got %q, want that it is revoked by a", text)
	}
	if err := b.do(revoke("a"), keep); code(err) != api.CodeRefused {
		t.Errorf("b, which is no admin: got %v, want a refusal", err)
	}
	_, found, err := b.foresee(byRoot(revoke("a")))
	if err != nil || len(found.Others) != 1 || found.Others[0].Name != "guest" || len(found.Revocations) != 1 || found.Revocations[0].Name != "founder" {
		t.Fatalf("got %+v, %v, want guest, and the revocation of the founder", found, err)
	}
	if err := b.do(byRoot(revoke("a")), keepButUndo); err != nil {
		t.Fatal(err)
	}
	b.see("b founder* guest")
	w.meet(b, a, guest)
	if text := a.ended(); !strings.Contains(text, "revoked by the root") {
		t.Errorf("a: got %q, want that it is revoked by the root", text)
	}
	if err := founder.begin(); err != nil {
		t.Fatalf("the founder starts: got %v, want that it asks the others", err)
	}
	if text := founder.records.View().Conflict; !strings.Contains(text, "asks the others") {
		t.Errorf("got %q, want it to be told", text)
	}
	w.meet(founder, b, guest)
	for _, n := range []*powerNode{founder, b, guest} {
		n.see("b founder* guest")
		if text := n.ended() + n.records.View().Conflict; text != "" {
			t.Errorf("%s: got %q, want it to go on", n.name, text)
		}
	}
	if err := a.begin(); err == nil || !strings.Contains(err.Error(), "revoked by the root") {
		t.Errorf("a starts: got %v, want its end: the root's word needs nobody else's", err)
	}
}

// One whose revocation still holds asks again when it is started, and ends as soon as it hears the same.
func TestRevokedNodeAsksAgain(t *testing.T) {
	w, founder := newPowers(t)
	a, b := w.join("a", founder, founder), w.join("b", founder, founder)
	w.meet(founder, a, b)
	if err := founder.do(revoke("a"), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a, b)
	if text := a.ended(); !strings.Contains(text, "revoked by founder") {
		t.Fatalf("got %q, want that it is revoked", text)
	}
	for range 2 {
		if err := a.begin(); err != nil {
			t.Fatalf("started: got %v, want that it asks", err)
		}
		if a.ended() != "" {
			t.Error("it has ended before it heard anything")
		}
		w.meet(a, b)
		if text := a.ended(); !strings.Contains(text, "revoked by founder") {
			t.Errorf("got %q, want that it is revoked", text)
		}
	}
	b.see("b founder*")
}

// A stolen key can put everybody out, itself included. Then no agent runs: the root's word is taken in without one.
func TestEverybodyIsOut(t *testing.T) {
	w, founder := newPowers(t)
	a, b := w.join("a", founder, founder), w.join("b", founder, founder)
	if err := founder.do(promote("a"), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a, b)
	if err := a.do(revoke("founder"), cascade); err != nil {
		t.Fatal(err)
	}
	w.meet(founder, a, b)
	for _, n := range []*powerNode{founder, b} {
		if text := n.ended(); text == "" {
			t.Errorf("%s goes on, want it out", n.name)
		}
		n.stop()
	}
	here, err := OpenOffline(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOffline(w.dir); err == nil {
		t.Error("opened twice at a time")
	}
	if _, err := here.Consequences(t.Context(), revoke("a")); !errors.Is(err, api.ErrNotRunning) {
		t.Errorf("without the root key: got %v, want %v", err, api.ErrNotRunning)
	}
	found, err := here.Consequences(t.Context(), byRoot(revoke("a")))
	if err != nil || len(found.Revocations) != 1 || found.Revocations[0].Name != "founder" {
		t.Fatalf("got %+v, %v, want the revocation of the founder by a", found, err)
	}
	with := cascade
	with.Act, with.Shown, with.Wait = byRoot(revoke("a")), found.Shown, true
	with.Signed = w.signed(found, with)
	said := 0
	if err := here.Commit(t.Context(), with, func(api.Confirmation) { said++ }); err != nil || said != 1 {
		t.Fatalf("got %v, said %d times, want once", err, said)
	}
	if err := here.Close(); err != nil {
		t.Error(err)
	}
	for _, n := range []*powerNode{founder, b} {
		n.open()
		if err := n.begin(); err != nil {
			t.Fatalf("%s starts: got %v", n.name, err)
		}
	}
	founder.see("b founder*")
	w.meet(founder, b)
	for _, n := range []*powerNode{founder, b} {
		n.see("b founder*")
		if text := n.ended() + n.records.View().Conflict; text != "" {
			t.Errorf("%s: got %q, want it to go on", n.name, text)
		}
	}
}

// The only admin is lost. Whoever has the root key makes another one on any member, and that lets others in.
func TestOnlyAdminDies(t *testing.T) {
	w, founder := newPowers(t)
	a, b := w.join("a", founder, founder), w.join("b", founder, founder)
	w.meet(founder, a, b)
	if err := b.do(byRoot(promote("a")), keep); err != nil {
		t.Fatal(err)
	}
	w.meet(a, b)
	c := w.join("c", a, b)
	w.meet(a, b, c)
	for _, n := range []*powerNode{a, b, c} {
		n.see("a* b c founder*")
	}
	if admins := c.records.View().Admins; len(admins) != 2 || admins[1].By != identity.KeyIDOfCert(w.root.Cert) {
		t.Errorf("got %+v, want a, promoted by the root", admins)
	}
	forged, err := identity.NewPromotion(identity.Authority{Cert: w.root.Cert, Key: b.state.Key}, found(t, b, "c").Key, time.Now())
	if err == nil {
		t.Fatalf("made %v, want no promotion by another key than the root's", forged.Subject)
	}
}

func found(t *testing.T, n *powerNode, name string) api.Consequences {
	t.Helper()
	_, c, err := n.foresee(byRoot(promote(name)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Nothing is hit that was not shown: when somebody has come in meanwhile who would go too, it is refused, by this node's key and by the root's.
func TestWhatHasChangedIsNotDone(t *testing.T) {
	w, founder := newPowers(t)
	a := w.join("a", founder, founder)
	w.meet(founder, a)
	for _, act := range []api.Act{revoke("a"), byRoot(revoke("a"))} {
		_, shown, err := founder.foresee(act)
		if err != nil {
			t.Fatal(err)
		}
		with := api.Commit{Act: act, Shown: shown.Shown, Keep: true}
		if act.Root {
			with.Signed = w.signed(shown, with)
		}
		late := w.join("late", founder, a)
		w.meet(founder, late)
		before := len(founder.records.View().Members)
		if err := founder.commit(t.Context(), with, func(api.Confirmation) {}); code(err) != api.CodeChanged {
			t.Errorf("got %v, want %s", err, api.CodeChanged)
		}
		if after := len(founder.records.View().Members); after != before || len(founder.records.View().Revoked) != 0 {
			t.Errorf("got %d members, want %d, and nobody revoked", after, before)
		}
	}
}

// A record that the root has not signed is not taken in, whoever hands it over.
func TestSignedRecordsAreVerified(t *testing.T) {
	w, founder := newPowers(t)
	a, b := w.join("a", founder, founder), w.join("b", founder, founder)
	w.meet(founder, a, b)
	_, shown, err := b.foresee(byRoot(revoke("a")))
	if err != nil {
		t.Fatal(err)
	}
	with := api.Commit{Act: byRoot(revoke("a")), Shown: shown.Shown}
	forger := *w
	forger.root = identity.Authority{Cert: w.root.Cert, Key: b.state.Key}
	for name, signed := range map[string][][]byte{"another key's": forger.signed(shown, with), "noise": {[]byte("noise")}, "nothing": {{}}} {
		with.Signed = signed
		if err := b.commit(t.Context(), with, func(api.Confirmation) { t.Errorf("%s: done", name) }); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	b.see("a b founder*")
}

// The invite by which a node came ends with it, so that it does not come back by the same token; who else came by it stays.
func TestInviteEndsWithTheNode(t *testing.T) {
	w, founder := newPowers(t)
	seed, invite, err := founder.records.Power().Invite(identity.InviteTerms{Uses: 3, Expires: time.Now().Add(time.Hour)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := w.joinWith("a", seed, invite, founder, founder)
	b := w.joinWith("b", seed, invite, founder, founder)
	w.meet(founder, a, b)
	_, shown, err := founder.foresee(revoke("a"))
	if err != nil || shown.Came == nil || len(shown.Came.Stay) != 1 || shown.Came.Stay[0].Name != "b" {
		t.Fatalf("got %+v, %v, want the invite, and that b stays", shown.Came, err)
	}
	if err := founder.do(revoke("a"), keep); err != nil {
		t.Fatal(err)
	}
	founder.see("b founder*")
	w.meet(founder, b)
	b.see("b founder*")
	leaf, err := identity.NewNode(identity.Authority{Cert: invite, Key: ed25519.NewKeyFromSeed(seed[:])}, identity.GenerateKey().Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*powerNode{founder, b} {
		if _, err := n.records.Admission().Admit(leaf); err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s admits by the same token: got %v, want a refusal", n.name, err)
		}
	}
	for _, i := range founder.records.View().Invites {
		if !i.Revoked {
			t.Errorf("got invite %+v, want it ended", i)
		}
	}
}
