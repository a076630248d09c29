package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/record"
)

// founded is a world with the state of a real mesh, of which the root key was exported to a file, and removed.
func founded(t *testing.T) (w *world, file string, root identity.Authority) {
	t.Helper()
	w = newWorld(t)
	w.direct([]string{"mesh", "home"}, "")
	w.direct([]string{"agent", "home"}, "")
	root, err := place.OwnRoot(w.dirs.stateDir("home"))
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(w.dir, "exported.key")
	if out, code := w.say("", "admin", "export-root", file, "--remove"); code != 0 {
		t.Fatalf("export-root: got %d, %s", code, out)
	}
	return w, file, root
}

// said are the IDs of the example, as the real ones that a record needs.
func realIDs(w *world) {
	for i := range w.status.Peers {
		w.status.Peers[i].ID = identity.NodeID{1, byte(i)}.String()
	}
	w.status.Invites[0].ID, w.status.Revoked[0].ID = identity.NodeID{2}.String(), identity.NodeID{3}.String()
}

// With the root key out of a file each act is signed by this program, for those that it has shown: the agent gets records, and no key.
func TestActsAreSignedWithTheRootKey(t *testing.T) {
	prefix := func(text string) record.Prefix {
		id, err := identity.ParseNodeID(text)
		if err != nil {
			t.Fatal(err)
		}
		return record.PrefixOf(id)
	}
	for _, tt := range []struct {
		args   []string
		scope  record.Scope
		keep   []int // of the example's peers
		stands bool  // what the target has revoked
	}{
		{[]string{"revoke", "beta", "--keep-admitted", "--keep-invite", "--reason", "stolen"}, record.ScopeWhole, []int{1, 2}, true},
		{[]string{"revoke", "beta", "--keep-admitted", "--keep-invite", "--undo-revocations"}, record.ScopeWhole, []int{1, 2}, false},
		{[]string{"revoke", "beta", "--cascade", "--keep-invite"}, record.ScopeWhole, nil, false},
		{[]string{"revoke", "gamma"}, record.ScopeWhole, nil, false},
		{[]string{"revoke", "--invite", "ffff"}, record.ScopeWhole, []int{1}, false},
		{[]string{"revoke", "--invite", "ffff", "--cascade", "--yes"}, record.ScopeWhole, nil, false},
		{[]string{"admin", "demote", "beta", "--keep-admitted"}, record.ScopePower, []int{1, 2}, true},
	} {
		w, file, root := founded(t)
		realIDs(w)
		out, code := w.say("", append(tt.args, "--root-key", file)...)
		if code != 0 || len(w.committed) != 1 || len(w.committed[0].Signed) != 1 || !w.committed[0].Act.Root {
			t.Errorf("%v: got %d, %s, and %+v asked, want one signed record", tt.args, code, out, w.committed)
			continue
		}
		signed, err := record.Unmarshal(w.committed[0].Signed[0])
		if err != nil {
			t.Fatal(err)
		}
		public := root.Key.Public().(ed25519.PublicKey)
		if err := signed.Verify(identity.MeshIDOf(public), public); err != nil {
			t.Errorf("%v: signed by the root: got %v", tt.args, err)
		}
		r, err := signed.Revocation()
		if err != nil {
			t.Fatal(err)
		}
		var keep, stands []record.Prefix
		for _, i := range tt.keep {
			keep = append(keep, prefix(w.status.Peers[i].ID))
		}
		if tt.stands {
			stands = append(stands, prefix(w.status.Revoked[0].ID))
		}
		if r.Scope != tt.scope || !same(r.Keep, record.NewPrefixes(keep...)) || !same(r.KeepRevoked, record.NewPrefixes(stands...)) || r.At() != exampleTime {
			t.Errorf("%v: got %+v, want scope %d, keep %v and %v", tt.args, r, tt.scope, keep, stands)
		}
		if key, err := os.ReadFile(file); err != nil || strings.Contains(out, strings.Split(string(key), "\n")[1]) {
			t.Errorf("%v: the key is printed (%v)", tt.args, err)
		}
	}
}

func same(a, b record.Prefixes) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// The invite by which a node came ends with it: a second record, in which all stay that stay.
func TestTheInviteEndsWithTheNode(t *testing.T) {
	w, file, _ := founded(t)
	realIDs(w)
	// The example's own IDs of the invite and of who else came by it are none that a record could hold.
	out, code := w.say("", "revoke", "beta", "--keep-admitted", "--root-key", file)
	if code == 0 || !strings.Contains(out, "zeta (llllllllll, 100.71.0.6): came by it") {
		t.Errorf("got %d, %s, want the others of the invite shown, and an error about its ID", code, out)
	}
	if len(w.committed) != 0 {
		t.Errorf("got %+v asked, want nothing", w.committed)
	}
}

// A member is promoted by the root: the certificate is for the key of whom was shown, and for no other.
func TestPromotionIsSignedWithTheRootKey(t *testing.T) {
	w, file, root := founded(t)
	w.key = identity.GenerateKey().Public().(ed25519.PublicKey)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct{ stdin, file string }{{"", file}, {string(raw), "-"}} {
		w.committed = nil
		out, code := w.say(from.stdin, "admin", "promote", "gamma", "--root-key", from.file)
		if code != 0 || len(w.committed) != 1 || len(w.committed[0].Signed) != 1 {
			t.Fatalf("got %d, %s, and %+v asked, want one signed record", code, out, w.committed)
		}
		signed, err := record.Unmarshal(w.committed[0].Signed[0])
		if err != nil {
			t.Fatal(err)
		}
		d, err := signed.Decode()
		if err != nil {
			t.Fatal(err)
		}
		if d.Certificate == nil || identity.RoleOf(d.Certificate) != identity.RolePromotion || identity.NodeIDOfCert(d.Certificate) != identity.NodeIDOf(w.key) || identity.CheckLink(d.Certificate, root.Cert) != nil {
			t.Errorf("got %+v, want a promotion of gamma by the root", d)
		}
	}
	w.committed, w.key = nil, nil
	if out, code := w.say("", "admin", "promote", "gamma", "--root-key", file); code == 0 || len(w.committed) != 0 {
		t.Errorf("an agent that names no key: got %d, %s, want an error and nothing signed", code, out)
	}
}

// What is no root key of this mesh signs nothing, and nobody is asked for anything.
func TestWrongRootKeys(t *testing.T) {
	w, file, _ := founded(t)
	realIDs(w)
	w.direct([]string{"mesh", "other"}, "")
	foreign := filepath.Join(w.dir, "foreign.key")
	if out, code := w.say("", "admin", "export-root", foreign, "--mesh", "other"); code != 0 {
		t.Fatal(out)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--root-key", foreign}, "not the root key of this mesh"},
		{[]string{"--root-key", filepath.Join(w.dir, "none")}, "no such file"},
		{[]string{"--root-key", w.dirs.stateDir("home") + "/node.key"}, "not the root key of this mesh"},
		{[]string{"--root-key", w.dirs.stateDir("home") + "/chain.pem"}, "no root key"},
		{[]string{"--root"}, "not on this machine"},
		{[]string{"--root-key", file}, "others may read"},
	} {
		w.committed = nil
		out, code := w.say("", append([]string{"revoke", "gamma", "--mesh", "home"}, tt.args...)...)
		if !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %s, want %q in it", tt.args, out, tt.want)
		}
		if right := tt.args[len(tt.args)-1] == file; (code == 0) != right || (len(w.committed) == 1) != right {
			t.Errorf("%v: got %d and %+v asked, want %t", tt.args, code, w.committed, right)
		}
	}
}

// A question does not hold up whoever has had enough of it.
func TestQuestionEndsWithItsContext(t *testing.T) {
	in, hand := io.Pipe()
	defer hand.Close()
	var out strings.Builder
	c := &console{in: in, out: &out, err: &out}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := c.answer(ctx, "well? "); got != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v, want %v", got, err, context.Canceled)
	}
	c.in = strings.NewReader("  keep \nmore")
	if got, err := c.answer(t.Context(), "well? "); got != "keep" || err != nil {
		t.Errorf("got %q, %v, want the word", got, err)
	}
	if out.String() != "well? \nwell? " {
		t.Errorf("got %q asked", out.String())
	}
}

// The shell is offered whom a command is for.
func TestCompletion(t *testing.T) {
	w := newWorld(t)
	w.direct([]string{"agent", "home"}, "")
	w.direct([]string{"mesh", "home"}, "")
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"revoke", ""}, "beta gamma delta?[2J"},
		{[]string{"admin", "promote", ""}, "gamma delta?[2J"},
		{[]string{"admin", "demote", ""}, "beta"},
		{[]string{"admin", "demote", "beta", ""}, ""},
		{[]string{"revoke", "--invite", ""}, "ffffffffff"},
		{[]string{"admin", ""}, "demote export-root import-root promote"},
	} {
		out, _ := w.say("", append([]string{"__complete"}, tt.words...)...)
		var got []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if word == ":4" {
				break // what follows is cobra's
			}
			got = append(got, word)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q: got %q, want %q", tt.words, got, tt.want)
		}
	}
}

// Where no agent runs the root key works all the same, and nothing else does.
func TestRootKeyWithoutAnAgent(t *testing.T) {
	w, file, _ := founded(t)
	w.direct([]string{"kill-agent"}, "")
	out, code := w.say("", "admin", "demote", "alpha", "--root-key", file)
	if code != 0 || !strings.Contains(out, "spreads when it runs again") || !strings.Contains(out, "no admin is left then") || !strings.Contains(out, "demoted alpha (") {
		t.Errorf("got %d, %s, want alpha demoted here", code, out)
	}
	if out, code := w.say("", "admin", "promote", "alpha", "--root-key", file); code != 1 || !strings.Contains(out, "demoted by the root, which is for good") {
		t.Errorf("got %d, %s, want that it is known on disk", code, out)
	}
	if out, code := w.say("", "admin", "demote", "alpha"); code != 1 || !strings.Contains(out, "the agent is not running") {
		t.Errorf("got %d, %s, want that the agent is not running", code, out)
	}
}

// What a person answers, and what flags say, is what the agent is asked for.
func TestWhatIsDecidedIsAsked(t *testing.T) {
	for _, tt := range []struct {
		args, answer string
		keep, stands bool
		asked        bool
	}{
		{"revoke beta --keep-admitted", "", true, true, true},
		{"revoke beta --keep-admitted --undo-revocations", "", true, false, true},
		{"revoke beta --cascade", "", false, false, true},
		{"revoke beta", "keep", true, true, true},
		{"revoke beta", "go", false, false, true},
		{"revoke beta --undo-revocations", "keep", true, false, true},
		{"revoke beta", "yes", false, false, false},
		{"revoke beta", "", false, false, false},
		{"revoke gamma", "", true, true, true},
		{"revoke --invite ffff", "", true, true, true},
		{"revoke --invite ffff --cascade", "yes", false, false, true},
		{"revoke --invite ffff --cascade", "no", false, false, false},
		{"admin demote beta", "keep", true, true, true},
		{"admin promote gamma", "", true, true, true},
	} {
		w := newWorld(t)
		w.direct([]string{"agent", "home"}, "")
		w.asks = true
		out, code := w.say(tt.answer, strings.Fields(tt.args)...)
		want := []api.Commit{{Keep: tt.keep, KeepRevoked: tt.stands}}
		if !tt.asked {
			want = nil
		}
		if (code == 0) != tt.asked || len(w.committed) != len(want) {
			t.Errorf("%s, %q: got %d, %s, %+v, want asked %t", tt.args, tt.answer, code, out, w.committed, tt.asked)
			continue
		}
		for _, got := range w.committed {
			if got.Keep != tt.keep || got.KeepRevoked != tt.stands || got.Shown != "as shown" || got.Act.Root || got.Signed != nil {
				t.Errorf("%s, %q: got %+v, want keep %t, %t", tt.args, tt.answer, got, tt.keep, tt.stands)
			}
		}
	}
}
