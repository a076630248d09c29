package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fakeBackend answers what it is given and keeps what it was asked.
type fakeBackend struct {
	status   Status
	netcheck Netcheck
	why      Why
	denials  Denials

	consequences Consequences

	err     error
	pings   []PingReply
	confirm []Confirmation
	asked   []any
	block   bool // until the context ends
}

func (b *fakeBackend) Status(context.Context) (Status, error) { return b.status, b.err }

func (b *fakeBackend) Ping(_ context.Context, req PingRequest, reply func(PingReply)) error {
	b.asked = append(b.asked, req)
	for _, p := range b.pings {
		reply(p)
	}
	return b.err
}

func (b *fakeBackend) Invite(_ context.Context, req InviteRequest) (Invite, error) {
	b.asked = append(b.asked, req)
	return Invite{Token: "warren1secret", Uses: req.Uses}, b.err
}

func (b *fakeBackend) Consequences(_ context.Context, act Act) (Consequences, error) {
	b.asked = append(b.asked, act)
	return b.consequences, b.err
}

func (b *fakeBackend) Commit(ctx context.Context, req Commit, confirm func(Confirmation)) error {
	b.asked = append(b.asked, req)
	for _, c := range b.confirm {
		confirm(c)
	}
	if b.block {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.err
}

func (b *fakeBackend) Leave(_ context.Context, req LeaveRequest) error {
	b.asked = append(b.asked, req)
	return b.err
}

func (b *fakeBackend) Devices(context.Context) (DeviceList, error) { return DeviceList{}, b.err }

func (b *fakeBackend) Device(_ context.Context, req DeviceName) (DeviceSetup, error) {
	b.asked = append(b.asked, req)
	return DeviceSetup{Name: req.Name}, b.err
}

func (b *fakeBackend) AddDevice(_ context.Context, req DeviceRequest) (DeviceSetup, error) {
	b.asked = append(b.asked, req)
	return DeviceSetup{Name: req.Name}, b.err
}

func (b *fakeBackend) RemoveDevice(_ context.Context, req DeviceName) error {
	b.asked = append(b.asked, req)
	return b.err
}

func (b *fakeBackend) Rename(_ context.Context, req RenameRequest) error {
	b.asked = append(b.asked, req)
	return b.err
}

func (b *fakeBackend) Reload(context.Context) (Reloaded, error) {
	return Reloaded{Schema: Schema, Pending: []string{}}, b.err
}

// start serves backend on a socket in a fresh directory and returns a client of it.
func start(t *testing.T, backend Backend, tune func(*Server)) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "home.sock")
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(backend, slog.New(slog.DiscardHandler))
	if tune != nil {
		tune(server)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("socket after Serve: got %v, want not there", err)
		}
	})
	return NewClient(path), path
}

func exampleStatus() Status {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	shake := at.Add(-5 * time.Second)
	return Status{
		Time: at, Version: "1.0.0", State: StateReady, Since: at.Add(-time.Hour),
		Mesh: &Mesh{Name: "home", ID: "00112233445566778899aabbccddeeff", Members: 3, Records: 6,
			Prefix4: netip.MustParsePrefix("100.71.0.0/16"), Prefix6: netip.MustParsePrefix("fd00:1122:3344::/48")},
		Relay: &Relay{Load: 130, LimitBPS: 20_000_000,
			Pairs:   []RelayPair{{A: "beta", B: "gamma", Joined: true, FromA: Relayed{Packets: 3, Bytes: 3000, Last: &shake}}},
			Members: []RelayMember{{Name: "beta", Channels: 1, Sent: Relayed{Packets: 3, Bytes: 3000, Dropped: 1, Last: &shake}}},
		},
		Self: Self{ID: "selfid", Name: "alpha", Interface: "warren0", Port: 9277, PublicKey: "k0=", Admin: true, Anchor: true,
			Addresses: []netip.Addr{netip.MustParseAddr("100.71.0.1"), netip.MustParseAddr("fd00:1122:3344::1")},
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.5:9277")}},
		Peers: []Peer{
			{ID: "betaid", Name: "beta", State: PeerUp, PublicKey: "k1=", LatencyMS: 12.5, RxBytes: 1 << 20, TxBytes: 4096,
				Addresses: []netip.Addr{netip.MustParseAddr("100.71.0.2")}, Life: Life{LastHandshake: &shake, LastHeard: &shake, Since: &shake},
				Path:    Path{Kind: PathDirect, Address: netip.MustParseAddrPort("198.51.100.7:41641")},
				Version: "1.0.0", Tags: []string{"server"}, Origin: Origin{AdmittedBy: "alpha"}},
			{ID: "gammaid", Name: "gamma", State: PeerDown, PublicKey: "k2=", Reason: "none of its anchors answers", Origin: Origin{AdmittedBy: "beta"}},
			{Name: "phone", Static: true, State: PeerIdle, PublicKey: "k3=", Routes: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}},
		},
		Admins:   []Admin{{ID: "selfid", Name: "alpha", Address: netip.MustParseAddr("100.71.0.1"), Since: at, By: "the root"}},
		RootKey:  &RootKey{Here: true},
		Invites:  []Invited{{ID: "inviteid", Uses: 1, Expires: &at, By: "alpha"}},
		Revoked:  []Revoked{{ID: "oldid", Kind: "node", Scope: ScopeWhole, Name: "old", Time: at, By: "alpha", Reason: "stolen"}},
		Warnings: []string{"certificate ends in 7 days"},
		Dropped:  map[string]uint64{"queue full": 2},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update rewrites it; a removed or changed field needs a new Schema)\ngot  %s\nwant %s", name, got, want)
	}
}

func TestStatusGolden(t *testing.T) {
	streams := Status{Streams: &Streams{Accepted: 3, Joins: 1, Refused: 2, Limited: 40, Failed: 5}}
	for name, status := range map[string]Status{"status.json": exampleStatus(), "status-empty.json": {}, "status-streams.json": streams} {
		_, socket := start(t, &fakeBackend{status: status}, nil)
		raw := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
		resp, err := raw.Get("http://warren/v1/status")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, body, "", "  "); err != nil {
			t.Fatal(err)
		}
		golden(t, name, pretty.Bytes())
	}
}

func TestConsequencesGolden(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	full := Consequences{
		Act: Act{Kind: ActRevoke, Node: "betaid"}, By: "alpha", Target: Party{ID: "betaid", Name: "beta", Address: netip.MustParseAddr("100.71.0.2"), Admin: true},
		Others:      []Party{{ID: "gammaid", Name: "gamma", Address: netip.MustParseAddr("100.71.0.3"), How: "admitted by beta"}},
		Revocations: []Revoked{{ID: "oldid", Kind: "node", Scope: ScopeWhole, Name: "old", Time: at, By: "beta"}},
		Demoted:     []Party{{ID: "deltaid", Name: "delta"}}, Ends: []Invited{{ID: "inviteid", Uses: 2, By: "beta"}},
		Came: &CameBy{ID: "otherid", Stay: []Party{{ID: "epsilonid", Name: "epsilon"}}}, Remarks: []string{"no admin is left then"}, Shown: "abc",
	}
	for name, c := range map[string]Consequences{"consequences.json": full, "consequences-empty.json": {}} {
		w := request(NewServer(&fakeBackend{consequences: c}, slog.New(slog.DiscardHandler)).routes(), "POST", "/v1/consequences", `{"kind":"revoke","node":"beta"}`)
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, w.Body.Bytes(), "", "  "); err != nil {
			t.Fatal(err)
		}
		golden(t, name, pretty.Bytes())
	}
}

func TestStatusRoundTrip(t *testing.T) {
	client, _ := start(t, &fakeBackend{status: exampleStatus()}, nil)
	got, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gotJSON, _ := json.Marshal(got)
	wantJSON, _ := json.Marshal(exampleStatus().complete())
	if !bytes.Equal(gotJSON, wantJSON) {
		t.Errorf("status: got %s, want %s", gotJSON, wantJSON)
	}
}

func TestErrorsArrive(t *testing.T) {
	refused := &Error{Code: CodeRefused, Message: "leave home: this node holds the root key", Hint: "use --force"}
	client, _ := start(t, &fakeBackend{err: refused}, nil)
	ctx := t.Context()
	_, statusErr := client.Status(ctx)
	_, inviteErr := client.Invite(ctx, InviteRequest{Uses: 1, ValidForMS: 1000})
	_, askedErr := client.Consequences(ctx, Act{Kind: ActRevoke, Node: "beta"})
	calls := map[string]error{
		"status": statusErr,
		"invite": inviteErr,
		"asked":  askedErr,
		"leave":  client.Leave(ctx, LeaveRequest{}),
		"reload": func() error { _, err := client.Reload(ctx); return err }(),
		"ping":   client.Ping(ctx, PingRequest{Peer: "beta", Count: 1, IntervalMS: 1000, TimeoutMS: 1000}, func(PingReply) {}),
		"revoke": client.Commit(ctx, Commit{Act: Act{Kind: ActRevoke, Node: "beta"}, Shown: "x"}, func(Confirmation) {}),
	}
	for name, err := range calls {
		var got *Error
		if !errors.As(err, &got) || *got != *refused {
			t.Errorf("%s: got %v, want %v", name, err, refused)
		}
	}
}

func TestStreams(t *testing.T) {
	backend := &fakeBackend{
		pings:   []PingReply{{Seq: 1, Name: "beta", LatencyMS: 1}, {Seq: 2, Name: "beta", Error: "no answer"}},
		confirm: []Confirmation{{Target: "beta", Waiting: 1}, {Target: "beta", Member: "gamma"}},
	}
	client, _ := start(t, backend, nil)
	var pings []PingReply
	if err := client.Ping(t.Context(), PingRequest{Peer: "beta", Count: 2, IntervalMS: 10, TimeoutMS: 1}, func(p PingReply) { pings = append(pings, p) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(pings, backend.pings) {
		t.Errorf("pings: got %v, want %v", pings, backend.pings)
	}
	// An error after the first line still arrives, as an error.
	backend.err = errors.New("lost the session")
	var confirmed []Confirmation
	err := client.Commit(t.Context(), Commit{Act: Act{Kind: ActRevoke, Node: "beta"}, Shown: "x", Wait: true}, func(c Confirmation) { confirmed = append(confirmed, c) })
	if err == nil || err.Error() != "lost the session" {
		t.Errorf("error at the end: got %v, want lost the session", err)
	}
	if !slices.Equal(confirmed, backend.confirm) {
		t.Errorf("confirmations: got %v, want %v", confirmed, backend.confirm)
	}
}

func TestStreamEndsWithCaller(t *testing.T) {
	backend := &fakeBackend{confirm: []Confirmation{{Target: "beta", Waiting: 1}}, block: true}
	client, _ := start(t, backend, nil)
	ctx, cancel := context.WithCancel(t.Context())
	err := client.Commit(ctx, Commit{Act: Act{Kind: ActRevoke, Node: "beta"}, Shown: "x", Wait: true}, func(Confirmation) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestOnlyRootChanges(t *testing.T) {
	client, _ := start(t, &fakeBackend{}, func(s *Server) { s.admin = func(caller) bool { return false } })
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("status: got %v, want nil", err)
	}
	_, err := client.Invite(t.Context(), InviteRequest{Uses: 1, ValidForMS: 1})
	var got *Error
	if !errors.As(err, &got) || got.Code != CodeForbidden {
		t.Errorf("invite: got %v, want %s", err, CodeForbidden)
	}
	if _, err := client.Consequences(t.Context(), Act{Kind: ActRevoke, Node: "beta"}); err != nil {
		t.Errorf("consequences, which change nothing: got %v, want nil", err)
	}
	err = client.Commit(t.Context(), Commit{Act: Act{Kind: ActRevoke, Node: "beta"}, Shown: "x"}, func(Confirmation) {})
	if !errors.As(err, &got) || got.Code != CodeForbidden {
		t.Errorf("commit: got %v, want %s", err, CodeForbidden)
	}
	root, self, other := caller{uid: 0}, caller{uid: uint32(os.Geteuid())}, caller{uid: uint32(os.Geteuid()) + 12345}
	if !root.mayChange() || !self.mayChange() || other.mayChange() {
		t.Errorf("mayChange root, self, other: got %v %v %v, want true true false", root.mayChange(), self.mayChange(), other.mayChange())
	}
}

func TestUnknownCaller(t *testing.T) {
	server := NewServer(&fakeBackend{}, slog.New(slog.DiscardHandler))
	w := httptest.NewRecorder()
	server.routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/status", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("status without credentials: got %d, want %d", w.Code, http.StatusForbidden)
	}
}

func TestBadRequests(t *testing.T) {
	tests := []struct{ method, path, body, want string }{
		{"POST", "/v1/ping", ``, "empty body"},
		{"POST", "/v1/ping", `{"peer":"a","count":1,"interval_ms":1000,"timeout_ms":1000} {}`, "more than one JSON value"},
		{"POST", "/v1/ping", `{"peer":"a","count":1,"interval_ms":1000,"timeout_ms":1000,"x":1}`, `unknown field "x"`},
		{"POST", "/v1/ping", `{"peer":"a","count":0,"interval_ms":1000,"timeout_ms":1000}`, "count 0"},
		{"POST", "/v1/ping", `{"peer":"a","count":1,"interval_ms":0,"timeout_ms":1000}`, "interval of 0 ms"},
		{"POST", "/v1/ping", `{"peer":"a","count":1,"interval_ms":1000,"timeout_ms":0}`, "timeout of 0 ms"},
		{"POST", "/v1/ping", `{"count":1}`, "name, address or ID"},
		{"POST", "/v1/ping", `[`, "unexpected EOF"},
		{"POST", "/v1/invite", `{"uses":0,"valid_for_ms":1}`, "0 uses"},
		{"POST", "/v1/invite", `{"uses":1,"valid_for_ms":-1}`, "life of -1 ms"},
		{"POST", "/v1/invite", `{"uses":1,"valid_for_ms":1,"tags":["a\u001b[2J"]}`, "printable"},
		{"POST", "/v1/invite", `{"uses":1,"valid_for_ms":1,"tags":["` + strings.Repeat("a", maxBody) + `"]}`, "larger than"},
		{"POST", "/v1/consequences", `{}`, "kind of act"},
		{"POST", "/v1/consequences", `{"kind":"revoke"}`, "either a node or an invite"},
		{"POST", "/v1/consequences", `{"kind":"revoke","node":"a","invite":"b"}`, "either a node or an invite"},
		{"POST", "/v1/consequences", `{"kind":"demote","invite":"b"}`, "want a node"},
		{"POST", "/v1/commit", `{"act":{"kind":"revoke","node":"a"}}`, "what was shown"},
		{"POST", "/v1/commit", `{"act":{"kind":"revoke","node":"a"},"shown":"x","reason":"\n"}`, "printable"},
		{"POST", "/v1/commit", `{"act":{"kind":"revoke","node":"a"},"shown":"x","signed":["AAAA"]}`, "root key"},
		{"POST", "/v1/commit", `{"act":{"kind":"promote","node":"a","root":true},"shown":"x"}`, "root key"},
		{"POST", "/v1/leave", `{"force":"yes"}`, "force"},
		{"POST", "/v1/why", `{}`, "name, address or ID"},
		{"POST", "/v1/why", `{"peer":"a","depth":1}`, `unknown field "depth"`},
		{"GET", "/v1/netcheck", ``, "no such call"},
		{"GET", "/v2/status", ``, "no such call"},
		{"DELETE", "/v1/status", ``, "no such call"},
	}
	backend := &fakeBackend{}
	routes := NewServer(backend, slog.New(slog.DiscardHandler)).routes()
	for _, test := range tests {
		w := request(routes, test.method, test.path, test.body)
		var e envelope
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error == nil || !strings.Contains(e.Error.Message, test.want) {
			t.Errorf("%s %s %.60s: got %.200s, want an error with %q", test.method, test.path, test.body, w.Body, test.want)
		}
		if w.Code == http.StatusOK {
			t.Errorf("%s %s %.60s: got status 200", test.method, test.path, test.body)
		}
	}
	if len(backend.asked) != 0 {
		t.Errorf("backend was asked %v, want nothing", backend.asked)
	}
}

func request(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{uid: 0}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestClientWithoutAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: got %v, want %v", err, ErrNotRunning)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: got %v, want %v", err, ErrNotRunning)
	}
}

func TestClientOfForeignServer(t *testing.T) {
	for name, answer := range map[string]string{"no JSON": "hello", "other schema": `{"schema":99}`, "nothing": ""} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })}
		go server.Serve(l)
		if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want %v", name, err, ErrProtocol)
		}
		server.Close()
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if _, err := Listen(path, ""); !errors.Is(err, ErrInUse) {
		t.Errorf("living socket: got %v, want %v", err, ErrInUse)
	}
	old.Close() // as a killed agent leaves it
	l, err := Listen(path, "")
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode without a group: got %o, want 600", got)
	}
	// Closing one that has been replaced leaves the new one alone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path, groupOfThisProcess(t))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	l.Close()
	info, err = os.Stat(path)
	if err != nil {
		t.Fatalf("new socket after the old one closed: %v", err)
	}
	if got := info.Mode().Perm(); got != 0o660 {
		t.Errorf("mode with a group: got %o, want 660", got)
	}
}

func groupOfThisProcess(t *testing.T) string {
	t.Helper()
	out, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Skipf("no /etc/group: %v", err)
	}
	name, _, _ := strings.Cut(string(out), ":")
	if os.Geteuid() != 0 {
		t.Skip("handing a socket to a group needs root")
	}
	return name
}

func FuzzRequests(f *testing.F) {
	for _, path := range []string{"ping", "why", "invite", "consequences", "commit", "leave", "reload"} {
		f.Add(path, `{"peer":"a","count":1,"interval_ms":1000,"timeout_ms":1000}`)
		f.Add(path, `{"uses":1,"valid_for_ms":1,"admin":true,"tags":["a"]}`)
		f.Add(path, `{"kind":"revoke","node":"a"}`)
		f.Add(path, `{"act":{"kind":"demote","node":"a"},"shown":"x","reason":"b","keep":true,"wait":true}`)
		f.Add(path, `{"force":true}`)
		f.Add(path, `{"peer":"a"}`)
	}
	f.Fuzz(func(t *testing.T, path, body string) {
		switch path {
		case "ping", "why", "invite", "consequences", "commit", "leave", "reload":
		default:
			t.Skip()
		}
		backend := &fakeBackend{}
		w := request(NewServer(backend, slog.New(slog.DiscardHandler)).routes(), http.MethodPost, "/v1/"+path, body)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("got an internal error: %s", w.Body)
		}
		if (w.Code == http.StatusOK) != (len(backend.asked) == 1) && path != "reload" {
			t.Errorf("got status %d after asking the backend %v", w.Code, backend.asked)
		}
	})
}
