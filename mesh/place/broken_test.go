package place

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"warren/mesh/disk"
	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
)

// fault is a disk on which one step goes wrong, or after which the process is dead, so that none follows.
type fault struct {
	at   int // counted from 1
	dies bool

	mu sync.Mutex
	n  int
}

func (f *fault) disk() disk.Disk {
	return disk.Disk{Step: func(what, path string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.n++; f.n == f.at || f.dies && f.n > f.at {
			return syscall.ENOSPC
		}
		return nil
	}}
}

func (f *fault) steps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// everyStep runs f with a fault at each step in turn, as an error and as death, until no step is left.
func everyStep(t *testing.T, f func(t *testing.T, at *fault)) {
	t.Helper()
	for _, dies := range []bool{false, true} {
		for at := 1; ; at++ {
			one := &fault{at: at, dies: dies}
			f(t, one)
			if t.Failed() {
				t.Fatalf("step %d, dies %t", at, dies)
			}
			if one.steps() < at {
				if at < 10 {
					t.Fatalf("got %d steps, want each change of the disk to be one", at-1)
				}
				break
			}
		}
	}
}

// wire is a connection in memory that exports like TLS and breaks after so many reads and writes of the member's.
type wire struct {
	net.Conn
	left *int // nil: whole
}

func (w wire) Export(label string) ([]byte, error) {
	sum := sha256.Sum256([]byte(label))
	return sum[:], nil
}

func (w wire) alive() bool {
	if w.left == nil {
		return true
	}
	if *w.left--; *w.left < 0 {
		w.Close()
		return false
	}
	return true
}

func (w wire) Read(b []byte) (int, error) {
	if !w.alive() {
		return 0, net.ErrClosed
	}
	return w.Conn.Read(b)
}

func (w wire) Write(b []byte) (int, error) {
	if !w.alive() {
		return 0, net.ErrClosed
	}
	return w.Conn.Write(b)
}

// founder is a member in memory, with an invite for one.
type founder struct {
	*member
	token string
	left  *int // what is left of the next connection; nil: all
	asked int
	ids   map[identity.NodeID]bool // that were admitted
}

func newFounder(t *testing.T) *founder {
	t.Helper()
	_, made := created(t)
	s, err := Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	f := &founder{member: &member{State: s, known: roster.New(s.Root())}, ids: make(map[identity.NodeID]bool)}
	own, err := s.OwnRecord(s.MeshID(), s.WireGuard, "1")
	if err != nil {
		t.Fatal(err)
	}
	own.Seq = 1
	f.sign(t, own)
	f.token = f.member.token(t, netip.MustParseAddrPort("192.0.2.1:9277"))
	return f
}

func (f *founder) Admit(cert *x509.Certificate) (record.Admission, error) {
	admission, err := f.member.Admit(cert)
	if err == nil {
		f.ids[identity.NodeIDOfCert(cert)] = true
	}
	return admission, err
}

// ask is askAll with this member alone.
func (f *founder) ask(ctx context.Context, token identity.Token, joiner *join.Joiner, o JoinOptions, progress func(JoinProgress)) (*join.Result, netip.AddrPort, error) {
	f.asked++
	addr := token.Anchors[0].Addr
	progress(JoinProgress{Stage: StageContacting, Anchor: addr})
	if err := o.fits(f.Root(), token.Mesh); err != nil {
		return nil, addr, err
	}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_, _ = join.Serve(ctx, wire{far, f.left}, f)
	}()
	result, err := joiner.Join(ctx, wire{near, nil}, f.Root())
	<-served
	return result, addr, err
}

func (f *founder) options(root string, d disk.Disk) JoinOptions {
	return JoinOptions{Token: f.token, StateRoot: root, Name: "beta", Version: "1", disk: d, ask: f.ask}
}

// joined checks that the machine is in the mesh, as the one member that was ever let in, and that nothing else lies about.
func (f *founder) joined(t *testing.T, root string, made Membership) {
	t.Helper()
	s, err := Load(filepath.Join(root, "home"))
	if err != nil {
		t.Fatal(err)
	}
	if s.NodeID() != made.ID || len(f.ids) != 1 || !f.ids[made.ID] {
		t.Errorf("got state of %s, membership of %s, %d admitted: want one and the same", s.NodeID().Short(), made.ID.Short(), len(f.ids))
	}
	members, uses := f.known.Members(), f.known.Invites()[0].Used
	if len(members) != 2 || !slices.Equal(uses, []identity.NodeID{made.ID}) {
		t.Errorf("got %d members and uses %v, want two and one", len(members), uses)
	}
	records, aside, err := store.Open(s.RecordsPath())
	if err != nil || aside != nil {
		t.Fatalf("got %v and %v, want the records", err, aside)
	}
	defer records.Close()
	if items, err := records.Load(); err != nil || len(items) < 3 {
		t.Errorf("got %d records, %v, want those of the mesh", len(items), err)
	}
	if got := list(t, root); !slices.Equal(got, []string{"home"}) {
		t.Errorf("got %v in the state directory, want the mesh alone", got)
	}
	for _, name := range list(t, filepath.Join(root, "home")) {
		if remedies[name] == "" {
			t.Errorf("got file %s in the state, which nobody knows", name)
		}
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Whatever step of a join fails, or is its last one: the same token makes it whole, the machine is the member that it was, and the invite is used once.
func TestJoinBrokenOffAtAnyStep(t *testing.T) {
	everyStep(t, func(t *testing.T, at *fault) {
		f, root := newFounder(t), filepath.Join(t.TempDir(), "state")
		made, err := Join(t.Context(), f.options(root, at.disk()), nil)
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line about the disk", err)
			}
			if f.asked > 0 && len(f.ids) > 0 && !strings.Contains(err.Error(), "same token") {
				t.Errorf("got %v, want what to do", err)
			}
			if f.asked == 0 && !at.dies && len(list(t, root)) > 0 {
				t.Errorf("got %v, want nothing where nobody was asked", list(t, root))
			}
			if made, err = Join(t.Context(), f.options(root, disk.Disk{}), nil); err != nil {
				t.Fatalf("repeated: got %v", err)
			}
		} else if at.steps() >= at.at && !made.Already {
			// A step that does not matter: what is left is cleared away later.
			_, err = Join(t.Context(), f.options(root, disk.Disk{}), nil)
			if err != nil {
				t.Fatal(err)
			}
			forgetPending(disk.Disk{}, root, f.MeshID())
		}
		f.joined(t, root, made)
	})
}

// Whatever message of the conversation is the last one to arrive.
func TestJoinWithALostAnswerAtAnyStep(t *testing.T) {
	for n := 0; ; n++ {
		f, root := newFounder(t), t.TempDir()
		left := n
		f.left = &left
		made, err := Join(t.Context(), f.options(root, disk.Disk{}), nil)
		whole := left >= 0
		if f.left = nil; err != nil {
			if again := strings.Contains(err.Error(), "same token"); again != (len(f.ids) > 0) && len(f.ids) > 0 {
				t.Errorf("broken after %d: got %v, want what to do", n, err)
			}
			if made, err = Join(t.Context(), f.options(root, disk.Disk{}), nil); err != nil {
				t.Fatalf("broken after %d, repeated: got %v", n, err)
			}
		}
		if len(f.ids) != 1 || !f.ids[made.ID] {
			t.Errorf("broken after %d: got %d admitted, want one", n, len(f.ids))
		}
		if whole {
			if n < 8 {
				t.Errorf("got %d reads and writes, want a conversation", n)
			}
			f.joined(t, root, made)
			return
		}
	}
}

// An attempt that is older than a certificate may be, which nobody has admitted, asks with a new one.
func TestOldAttemptAsksAnew(t *testing.T) {
	f, root := newFounder(t), t.TempDir()
	token, err := identity.ParseToken(f.token)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPending(disk.Disk{}, root, token)
	if err != nil {
		t.Fatal(err)
	}
	joiner := join.NewJoiner(join.Options{Seed: token.Seed, Key: p.state.Key, Keep: p.keep})
	if joiner.Renew(join.Refuse(join.CodeClock, "")) {
		t.Error("renewed what there is not")
	}
	again, err := openPending(disk.Disk{}, root, token)
	if err != nil || again.state.NodeID() != p.state.NodeID() || again.cert != nil {
		t.Errorf("got %v, want the same keys and no certificate", err)
	}
	other := token
	other.Seed[0]++
	another, err := openPending(disk.Disk{}, root, other)
	if err != nil || another.state.NodeID() == p.state.NodeID() {
		t.Errorf("another invite: got %v, want other keys", err)
	}
	forgetPending(disk.Disk{}, root, token.Mesh)
	if got := list(t, root); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

// A machine that is a member is told so, and asks nobody: not with that token nor with another one of the mesh, and not on a disk that
// cannot be written.
func TestJoinLooksBeforeItAsks(t *testing.T) {
	f, root := newFounder(t), t.TempDir()
	made, err := Join(t.Context(), f.options(root, disk.Disk{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	full := &fault{at: 1, dies: true}
	asked := f.asked
	for _, token := range []string{f.token, f.member.token(t, netip.MustParseAddrPort("192.0.2.7:1"))} {
		o := f.options(root, full.disk())
		o.Token = token
		again, err := Join(t.Context(), o, nil)
		if err != nil || !again.Already || again.ID != made.ID || f.asked != asked || full.steps() > 0 {
			t.Errorf("got %+v, %v, asked %d times, %d steps: want the place as it is, and nothing done", again, err, f.asked-asked, full.steps())
		}
	}

	// Another mesh has the name.
	other := newFounder(t)
	_, err = Join(t.Context(), other.options(root, disk.Disk{}), nil)
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "another mesh") || len(other.ids) > 0 {
		t.Errorf("got %v, %d admitted, want that another mesh has the name, and nobody asked", err, len(other.ids))
	}
	if got := list(t, root); !slices.Equal(got, []string{"home"}) {
		t.Errorf("got %v, want the mesh alone", got)
	}

	// The state is damaged.
	if err := os.WriteFile(filepath.Join(made.StateDir, fileNodeKey), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), f.options(root, disk.Disk{}), nil); err == nil || !strings.Contains(err.Error(), fileNodeKey) || f.asked != asked {
		t.Errorf("got %v, want the damage named and nobody asked", err)
	}
}

// Before the first packet all is known that would be in the way at the end.
func TestJoinAsksNobodyWithoutADisk(t *testing.T) {
	f, dir := newFounder(t), t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{file, filepath.Join(file, "below"), "/proc/warren"} {
		_, err := Join(t.Context(), f.options(root, disk.Disk{}), nil)
		if err == nil || f.asked > 0 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, asked %d times, want one line and nobody asked", root, err, f.asked)
		}
	}
	// A symbolic link to a directory is one.
	linked := filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o700), os.Symlink(filepath.Join(dir, "real"), linked)); err != nil {
		t.Fatal(err)
	}
	made, err := Join(t.Context(), f.options(linked, disk.Disk{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.joined(t, linked, made)
}

// Two joins at once on one machine are one member.
func TestTwoJoinsAtOnce(t *testing.T) {
	f, root := newFounder(t), t.TempDir()
	var both sync.WaitGroup
	var mu sync.Mutex
	var waited int
	results := make(chan Membership, 2)
	for range 2 {
		both.Go(func() {
			made, err := Join(t.Context(), f.options(root, disk.Disk{}), func(p JoinProgress) {
				if p.Stage == StageWaiting {
					mu.Lock()
					waited++
					mu.Unlock()
				}
			})
			if err != nil {
				t.Error(err)
			}
			results <- made
		})
	}
	both.Wait()
	one, other := <-results, <-results
	if one.ID != other.ID || one.Already == other.Already {
		t.Errorf("got %+v and %+v, want one that joined and one that finds it", one, other)
	}
	f.joined(t, root, one)

	// One that has to wait for too long says so.
	unlock, err := lockRoot(t.Context(), disk.Disk{}, root, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockPoll)
	defer cancel()
	if _, err := Join(ctx, newFounder(t).options(root, disk.Disk{}), nil); err == nil || !strings.Contains(err.Error(), "at work") {
		t.Errorf("got %v, want who is in the way", err)
	}
}

// Whatever step of a create fails or is its last one: there is no mesh or a whole one, and the next create works or finds it.
func TestCreateBrokenOffAtAnyStep(t *testing.T) {
	everyStep(t, func(t *testing.T, at *fault) {
		root := filepath.Join(t.TempDir(), "state")
		o := CreateOptions{Mesh: "home", StateRoot: root, Name: "alpha", NoIPv4: true, disk: at.disk()}
		_, err := Create(o)
		if err != nil && (!errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("got %v, want one line about the disk", err)
		}
		if o.disk = (disk.Disk{}); err != nil {
			if _, err := Create(o); err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatalf("repeated: got %v", err)
			}
		}
		s, err := Load(filepath.Join(root, "home"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OwnRoot(s.Dir); err != nil {
			t.Error(err)
		}
		if got := list(t, root); !slices.Equal(got, []string{"home"}) {
			t.Errorf("got %v in the state directory, want the mesh alone", got)
		}
	})
}

// Whatever step of a leave fails or is its last one: the next one leaves nothing, and until then the state is whole or not there.
func TestLeaveBrokenOffAtAnyStep(t *testing.T) {
	for _, linked := range []bool{false, true} {
		for at := 1; ; at++ {
			one := &fault{at: at, dies: true}
			root, made := created(t)
			real := made.StateDir
			if linked {
				real = filepath.Join(t.TempDir(), "elsewhere")
				if err := errors.Join(os.Rename(made.StateDir, real), os.Symlink(real, made.StateDir)); err != nil {
					t.Fatal(err)
				}
			}
			err := LeaveOffline(LeaveOptions{StateDir: made.StateDir, Force: true, disk: one.disk()})
			whole := one.steps() < at
			if whole != (err == nil) && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("step %d: got %v", at, err)
			}
			if _, statErr := os.Stat(made.StateDir); statErr == nil {
				if _, err := Load(made.StateDir); err != nil {
					t.Errorf("step %d: got %v, want a whole state while it has its name", at, err)
				}
			}
			if err := LeaveOffline(LeaveOptions{StateDir: made.StateDir, Force: true}); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("step %d, repeated: got %v", at, err)
			}
			if got := list(t, root); len(got) != 0 {
				t.Errorf("step %d: got %v, want nothing", at, got)
			}
			if linked && len(list(t, real)) != 0 {
				t.Errorf("step %d: got %v where the link led, want nothing", at, list(t, real))
			}
			if whole {
				break
			}
		}
	}
}
