package node

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/place"
)

// changes are another value for each field of Settings, with its key in the config file.
var changes = map[string]struct {
	key    string
	change func(*Settings)
}{
	"Interface.Name":       {"interface.name", func(s *Settings) { s.Interface.Name = "wg7" }},
	"Interface.Port":       {"interface.port", func(s *Settings) { s.Interface.Port = 9300 }},
	"Interface.MTU":        {"interface.mtu", func(s *Settings) { s.Interface.MTU = 1300 }},
	"Interface.Addresses":  {"interface.addresses", func(s *Settings) { s.Interface.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")} }},
	"Interface.PrivateKey": {"interface.private_key_file", func(s *Settings) { s.Interface.PrivateKey = wgtypes.Key{9} }},
	"Anchor":               {"mesh.anchor", func(s *Settings) { s.Anchor = AnchorNever }},
	"IPv4":                 {"mesh.ipv4", func(s *Settings) { s.IPv4 = new(bool) }},
	"NoIncoming":           {"mesh.incoming", func(s *Settings) { s.NoIncoming = true }},
	"NoLAN":                {"mesh.lan", func(s *Settings) { s.NoLAN = true }},
	"Endpoints":            {"mesh.endpoint", func(s *Settings) { s.Endpoints = []string{"vpn.example:1"} }},
	"Static.Name":          {"peer.name", nil}, // of messages only
	"Static.PublicKey":     {"peer.public_key", func(s *Settings) { s.Static[0].PublicKey = wgtypes.Key{8} }},
	"Static.PresharedKey":  {"peer.preshared_key_file", func(s *Settings) { s.Static[0].PresharedKey = wgtypes.Key{7} }},
	"Static.AllowedIPs":    {"peer.allowed_ips", func(s *Settings) { s.Static[0].AllowedIPs = []netip.Prefix{netip.MustParsePrefix("10.97.0.2/32")} }},
	"Static.Endpoint":      {"peer.endpoint", func(s *Settings) { s.Static[0].Endpoint = "vpn.example:2" }},
	"Static.Keepalive":     {"peer.persistent_keepalive", func(s *Settings) { s.Static[0].Keepalive = time.Minute }},
	"Static.Share":         {"peer.share", func(s *Settings) { s.Static[0].Share = true }},
	"StreamPorts":          {"mesh.stream_ports", func(s *Settings) { s.StreamPorts = []uint16{443} }},
	"Names":                {"mesh.names", nil}, // of mesh/agent, by the board
	"RelayLimit":           {"mesh.relay_limit", func(s *Settings) { s.RelayLimit = 1e6 }},
}

// fieldsOf lists the fields of a struct and of the structs in it, by their paths.
func fieldsOf(of reflect.Type, path string) (out []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name := strings.TrimPrefix(path+"."+f.Name, ".")
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner.PkgPath() == of.PkgPath() {
			out = append(out, fieldsOf(inner, name)...)
		} else {
			out = append(out, name)
		}
	}
	return out
}

// Each setting stands in the list of effects, and does what the list says: what takes effect at a reload is another plan, and what does
// not is said.
func TestEachSettingHasItsEffect(t *testing.T) {
	fields := slices.DeleteFunc(fieldsOf(reflect.TypeOf(Settings{}), ""), func(field string) bool {
		return field == "Static.Device" || field == "Static.Tags" // of devices, which no file names
	})
	if len(fields) != len(changes) || len(fields) != len(Effects) {
		t.Errorf("got %d fields of Settings, %d changes in this test, %d effects, want them the same", len(fields), len(changes), len(Effects))
	}
	for _, field := range fields {
		c, ok := changes[field]
		effect, listed := Effects[c.key]
		if !ok || !listed {
			t.Errorf("%s: got no key, or no effect of %q: does a change of it take effect at a reload?", field, c.key)
			continue
		}
		if c.change == nil {
			continue
		}
		before := testFacts(testMember(1, "203.0.113.1:9277"))
		before.port = place.DefaultPort
		before.names = map[string]netip.AddrPort{"vpn.example:1": netip.MustParseAddrPort("203.0.113.9:1"), "vpn.example:2": netip.MustParseAddrPort("203.0.113.9:2")}
		before.settings.Static = []StaticPeer{{Name: "one", PublicKey: wgtypes.Key{101}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.200.1/32")}}}
		after := before
		after.settings.Static = slices.Clone(before.settings.Static)
		c.change(&after.settings)
		moved := !reflect.DeepEqual(plan(before), plan(after))
		pending := running{began: before.settings.Interface, name: "warren0", port: place.DefaultPort, key: wgtypes.Key{1}}.pending(after.settings.Interface)
		if want := effect == AtReload; moved != want || (len(pending) == 1 && strings.Contains(pending[0], c.key)) == want {
			t.Errorf("%s: got another plan: %t, said %q, want what takes effect at a reload: %t", c.key, moved, pending, want)
		}
	}
}

// What waits is found by comparing with what runs, not with the file before.
func TestPendingSettings(t *testing.T) {
	public := wgtypes.Key{8}.PublicKey()
	for _, tt := range []struct {
		began, now Interface
		want       []string // words of each
	}{
		{Interface{}, Interface{}, nil},
		{Interface{}, Interface{Name: "warren0", Port: 9277}, nil}, // as it runs
		{Interface{}, Interface{Port: 9300}, []string{"interface.port 9300 takes effect when the agent starts again; it runs with 9277"}},
		{Interface{}, Interface{Name: "wg7"}, []string{"interface.name wg7 takes effect when the agent starts again; it runs with warren0"}},
		{Interface{Port: 9277}, Interface{}, []string{"interface.port is not in the config file any more; the agent runs with 9277 until it starts again"}},
		{Interface{Name: "warren0"}, Interface{}, []string{"interface.name is not in the config file any more"}},
		{Interface{PrivateKey: wgtypes.Key{8}}, Interface{PrivateKey: wgtypes.Key{8}}, nil},
		{Interface{}, Interface{PrivateKey: wgtypes.Key{16}}, []string{"interface.private_key_file with the key of " + wgtypes.Key{16}.PublicKey().String() + " takes effect"}},
		{Interface{PrivateKey: wgtypes.Key{8}}, Interface{}, []string{"interface.private_key_file is not in the config file any more; the agent runs with the key of " + public.String()}},
		{Interface{}, Interface{Port: 1, Name: "x", MTU: 1400}, []string{"interface.name x", "interface.port 1 "}},
	} {
		got := running{began: tt.began, name: "warren0", port: 9277, key: public}.pending(tt.now)
		if len(got) != len(tt.want) {
			t.Errorf("%+v after %+v: got %q, want %q", tt.now, tt.began, got, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%+v after %+v: got %q, want %q", tt.now, tt.began, got[i], want)
			}
		}
	}
}

// A reload says it each time, until the file says what runs.
func TestReloadSaysWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTwins(t, newNetwork(), 1, testMember(1))
		a.run(t)
		const says = "interface.port 9300 takes effect when the agent starts again; it runs with 9277"
		for i := range 3 {
			a.setting.Interface.Port = 9300
			pending, err := a.hub.Reload(t.Context())
			synctest.Wait()
			if err != nil || !slices.Equal(pending, []string{says}) || !slices.Contains(a.hub.Board().Warnings, says) {
				t.Errorf("reload %d: got %q, %v and warnings %q, want %q", i, pending, err, a.hub.Board().Warnings, says)
			}
		}
		a.loadErr = errTwin
		if _, err := a.hub.Reload(t.Context()); !errors.Is(err, errTwin) {
			t.Errorf("got %v, want the error of Load", err)
		}
		a.loadErr, a.setting.Interface.Port = nil, 0
		if pending, err := a.hub.Reload(t.Context()); err != nil || pending != nil {
			t.Errorf("back: got %q, %v, want nothing that waits", pending, err)
		}
		synctest.Wait()
		if got := a.hub.Board().Warnings; len(got) != 0 {
			t.Errorf("back: got warnings %q, want none", got)
		}
	})
}
