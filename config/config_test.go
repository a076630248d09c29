package config

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	keyA = "GtL7fZc/bLnqZldpVofMCD6hDjrK28SsdLxevJ+qtKU="
	keyB = "4G4nzC2FgXVPBRc4Z8Mwyk6X4k8M7r4uKp1w0qjW6Hs="
)

const full = `# everything that there is
[interface]
name = "wg7"
port = 51_820
mtu = 1280
private_key_file = "/etc/warren/key"
addresses = ["100.70.0.1/24", "fd00::1/64"]

[mesh]
anchor = "never"
relay_limit = "2.5 Mbit/s"
endpoint = ["vpn.example.org:9277", "[2001:db8::1]:9277"]
ipv4 = false
incoming = false
lan = false
names = "hosts"
stream_ports = [443, 8443]

[[peer]]
name = "phone"
public_key = "` + keyA + `"
allowed_ips = ["100.70.0.9/32"]
endpoint = "host:51820"
preshared_key_file = "/etc/warren/psk"
persistent_keepalive = "25s"
share = true

[[peer]]
public_key = '` + keyB + `'
allowed_ips = []
`

func key(t *testing.T, text string) [32]byte {
	t.Helper()
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParse(t *testing.T) {
	got, err := Parse("warren.toml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Interface: Interface{Name: "wg7", Port: 51820, MTU: 1280, PrivateKeyFile: "/etc/warren/key",
			Addresses: []netip.Prefix{netip.MustParsePrefix("100.70.0.1/24"), netip.MustParsePrefix("fd00::1/64")}},
		Mesh: Mesh{Anchor: "never", Names: "hosts", IPv4: new(bool), RelayLimit: 312_500, Endpoints: []string{"vpn.example.org:9277", "[2001:db8::1]:9277"}, StreamPorts: []uint16{443, 8443}},
		Peers: []Peer{
			{Name: "phone", PublicKey: key(t, keyA), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.0.9/32")},
				Endpoint: "host:51820", PresharedKeyFile: "/etc/warren/psk", Keepalive: 25 * time.Second, Share: true},
			{Name: keyB[:10], PublicKey: key(t, keyB)},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseForms(t *testing.T) {
	for name, text := range map[string]string{
		"inline tables": `interface = {port = 51820}` + "\n" + `peer = [{public_key = "` + keyA + `", allowed_ips = ["10.0.0.1/32"]}]`,
		"dotted keys":   "interface.port = 0xca6c\n[[peer]]\npublic_key = \"" + keyA + "\"\nallowed_ips = [\n  \"10.0.0.1/32\", # a comment\n]",
		"crlf":          "[interface]\r\nport = 51820\r\n[[peer]]\r\npublic_key = \"" + keyA + "\"\r\nallowed_ips = [\"10.0.0.1/32\"]\r\n",
	} {
		got, err := Parse("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got.Interface.Port != 51820 || len(got.Peers) != 1 || got.Peers[0].PublicKey != key(t, keyA) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	empty, err := Parse("f", nil)
	if want := (Config{Mesh: Mesh{Anchor: "auto", Incoming: true, LAN: true, Names: "auto"}}); err != nil || !reflect.DeepEqual(empty, want) {
		t.Errorf("empty file: got %+v, %v, want %+v", empty, err, want)
	}
	one, err := Parse("f", []byte(`mesh.endpoint = "a.example:1"`))
	if err != nil || !one.Mesh.LAN || len(one.Mesh.Endpoints) != 1 {
		t.Errorf("single endpoint: got %+v, %v", one.Mesh, err)
	}
}

// TestOldNames asserts that what a key was once called is still read.
func TestOldNames(t *testing.T) {
	c, err := Parse("f", []byte("[mesh]\nfallback_ports = [443]"))
	if want := []uint16{443}; err != nil || !slices.Equal(c.Mesh.StreamPorts, want) {
		t.Errorf("fallback_ports: got %v, %v, want %v", c.Mesh.StreamPorts, err, want)
	}
}

func TestMistakes(t *testing.T) {
	peer := "[[peer]]\npublic_key = \"" + keyA + "\"\n"
	tests := []struct{ text, want string }{
		{"[interface]\n  adresses = []", `f:2:3: unknown key "adresses"; did you mean "addresses"?`},
		{"[interfac]", `f:1:2: unknown key "interfac"; did you mean "interface"?`},
		{"colour = 1", `f:1:1: unknown key "colour" in the file; it knows interface, mesh, peer`},
		{"[interface]\nprivate_key = \"" + keyA + "\"", `f:2:1: unknown key "private_key"; did you mean "private_key_file"?`},
		{"[interface]\nprivate_key_file = \"" + keyA + "\"", `f:2:20: private_key_file: want the path of a file that holds the key, not the key itself`},
		{"[interface]\nport = \"9277\"", `f:2:8: port: want an integer without quotes, got a string`},
		{"[interface]\nport = 70000", `f:2:8: port 70000: want 1 to 65535`},
		{"[interface]\nport = 99999999999999999999", `f:2:8: decimal number is too large`},
		{"[interface]\nmtu = 1.5", `f:2:7: mtu: want an integer without quotes, got a float or date`},
		{"[interface]\nname = \"much-too-long-name\"", `f:2:8: name "much-too-long-name": want 1 to 15 characters`},
		{"[interface]\nprivate_key_file = \"key\"", `f:2:20: private_key_file "key": want an absolute path`},
		{"[interface]\naddresses = [\"10.0.0.1\"]", `f:2:14: addresses "10.0.0.1": want an address with a length; did you mean "10.0.0.1/32"?`},
		{"[interface]\naddresses = [\n  \"10.0.0.1/24\",\n  \"x\",\n]", `f:4:3: addresses "x": want an address with a length, like`},
		{"[interface]\naddresses = \"10.0.0.1/24\"", `f:2:13: addresses: want a list of strings`},
		{"[interface]\nport = 1\nport = 2", `f:3:1: `},
		{"[interface]\nport = ", `f:2:7: expected value`},
		{"interface = 1", `f:1:13: [interface]: want a table, got an integer`},
		{"[interface]\nname = \"wg%d\"", `f:2:8: name "wg%d": want 1 to 15 characters`},
		{"[interface]\nname = \"all\"", `f:2:8: name "all": want 1 to 15 characters`},
		{"[interface]\naddresses = [\"0.0.0.0/24\"]", `f:2:14: addresses "0.0.0.0/24": is no address of one machine`},
		{"[interface]\naddresses = [\"224.0.0.1/24\"]", `is no address of one machine`},
		{"[interface]\naddresses = [\"127.0.0.5/8\"]", `is a loopback address`},
		{"[interface]\naddresses = [\"fe80::5/64\"]", `is link-local`},
		{"[interface]\naddresses = [\"::ffff:10.9.0.1/120\"]", `did you mean "10.9.0.1/24"?`},
		{"[mesh]\nendpoint = \"0.0.0.0:9277\"", `f:2:12: endpoint "0.0.0.0:9277": want the address of one machine`},
		{"[[peer]]\npublic_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\nallowed_ips = []", `f:2:14: public_key "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=": is all zeros`},
		{peer + "allowed_ips = []\nendpoint = \"[ff02::1]:1\"", `f:4:12: endpoint "[ff02::1]:1": want the address of one machine`},
		{"[mesh]\nipv4 = \"none\"", `f:2:8: ipv4: want true or false without quotes, got a string`},
		{"[mesh]\nlan = \"off\"", `f:2:7: lan: want true or false without quotes, got a string`},
		{"[mesh]\nstream_ports = 443", `f:2:16: stream_ports: want a list of ports like [443], got an integer`},
		{"[mesh]\nstream_ports = [\"443\"]", `f:2:17: stream_ports: want an integer without quotes, got a string`},
		{"[mesh]\nstream_ports = [443, 70000]", `f:2:22: stream_ports 70000: want 1 to 65535`},
		{"[mesh]\nstream_ports = [1, 2, 3, 4, 5]", `f:2:1: stream_ports: want at most 4 ports, got 5`},
		{"[mesh]\nanchor = \"sometimes\"", `f:2:10: anchor "sometimes": want "auto", "always" or "never"`},
		{"[mesh]\nrelay_limit = \"10\"", `f:2:15: relay_limit "10": want a number and a unit`},
		{"[mesh]\nrelay_limit = \"NaN Mbit/s\"", `f:2:15: relay_limit "NaN Mbit/s": want a number and a unit`},
		{"[mesh]\nrelay_limit = \"0 Mbit/s\"", `f:2:15: relay_limit "0 Mbit/s": want a number and a unit`},
		{"[mesh]\nnames = \"dns\"", `f:2:9: names "dns": want "auto", "resolved", "hosts" or "off"`},
		{"[mesh]\nrelay_limit = 10", `f:2:15: relay_limit: want a string in quotes, got an integer`},
		{"[mesh]\nendpoint = \"host\"", `f:2:12: endpoint "host": want HOST:PORT`},
		{"[mesh]\nendpoint = [\"host:0\"]", `f:2:13: endpoint "host:0": want a port`},
		{"[peer]\nname = \"x\"", `f:1:2: peer: want [[peer]] in double brackets`},
		{"[[peer]]\nallowed_ips = []", `f:1:3: [[peer]] without public_key`},
		{peer, `f:1:3: [[peer]] without allowed_ips`},
		{"[[peer]]\npublic_key = \"abc\"\nallowed_ips = []", `f:2:14: public_key "abc": want 44 characters of base64`},
		{peer + "allowed_ips = [\"10.0.0.1/8\"]", `f:3:16: allowed_ips "10.0.0.1/8": has bits beyond its length; did you mean "10.0.0.0/8"?`},
		{peer + "allowed_ips = [1]", `f:3:16: allowed_ips: want a string in quotes, got an integer`},
		{peer + "allowed_ips = []\npersistent_keepalive = 25", `f:4:24: persistent_keepalive: want a string in quotes, got an integer`},
		{peer + "allowed_ips = []\npersistent_keepalive = \"25\"", `f:4:24: persistent_keepalive "25": want whole seconds up to 65535s, like "25s"`},
		{peer + "allowed_ips = []\nshare = \"yes\"", `f:4:9: share: want true or false without quotes, got a string`},
		{peer + "allowed_ips = []\nname = \"a b\"", `f:4:8: name "a b": want 1 to 63`},
		{peer + "allowed_ips = []\n" + peer + "allowed_ips = []", `f:5:14: public_key "` + keyA + `": is that of the peer in line 2 already`},
		{peer + "allowed_ips = [\"10.0.0.0/8\"]\nname = \"x\"\n[[peer]]\npublic_key = \"" + keyB + "\"\nallowed_ips = [\"10.0.0.0/8\"]",
			`allowed_ips: 10.0.0.0/8 is routed to peer "x" already`},
		{"\xff", `f:1:1: `},
		{"a = " + strings.Repeat("[", 50) + strings.Repeat("]", 50), `nested deeper`},
	}
	for _, test := range tests {
		_, err := Parse("f", []byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q:\ngot  %v\nwant %s", test.text, err, test.want)
		}
	}
}

func TestAllMistakesInOrder(t *testing.T) {
	_, err := Parse("f", []byte("[mesh]\nanchor = 1\n[interface]\nport = 0\nfoo = 1\n"))
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 || all[0].Line != 2 || all[1].Line != 4 || all[2].Line != 5 {
		t.Errorf("got %v, want the mistakes of lines 2, 4 and 5", err)
	}
}

// The tags are the keys that the file knows, each of them.
func TestTagsAreTheKeys(t *testing.T) {
	tags := func(of reflect.Type) (out []string) {
		for i := range of.NumField() {
			out = append(out, of.Field(i).Tag.Get("toml"))
		}
		slices.Sort(out)
		return out
	}
	for _, tt := range []struct {
		text  string
		table any
		old   []string // names of before
	}{
		{"zzzzzzzz = 1", Config{}, nil}, {"[interface]\nzzzzzzzz = 1", Interface{}, nil}, {"[mesh]\nzzzzzzzz = 1", Mesh{}, []string{"fallback_ports"}},
		{"[[peer]]\nzzzzzzzz = 1", Peer{}, nil},
	} {
		_, err := Parse("f", []byte(tt.text))
		if err == nil {
			t.Fatalf("%q: got no error", tt.text)
		}
		_, list, _ := strings.Cut(err.Error(), "it knows ")
		list, _, _ = strings.Cut(list, "\n")
		known := slices.DeleteFunc(strings.Split(list, ", "), func(key string) bool { return slices.Contains(tt.old, key) })
		if want := tags(reflect.TypeOf(tt.table)); !slices.Equal(known, want) {
			t.Errorf("%T: got keys %q, want the tags %q", tt.table, known, want)
		}
	}
}

// What is wrong with a prefix only on one machine is told where it stands, too.
func TestPlaces(t *testing.T) {
	c, places, err := ParseAt("f", []byte("[[peer]]\npublic_key = \""+keyA+"\"\nallowed_ips = []\n[[peer]]\nallowed_ips = [\n  \"10.0.0.0/8\",\n  \"0.0.0.0/0\",\n]\npublic_key = \""+keyB+"\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := places.Allowed(c, 1, 1, "no").Error(), `f:7:3: allowed_ips "0.0.0.0/0": no`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v, want %v", err, os.ErrNotExist)
	}
	path := filepath.Join(dir, "warren.toml")
	if err := os.WriteFile(path, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("huge file: got %v, want it refused", err)
	}
}

func TestReadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(keyA+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadKey(path); err != nil || got != key(t, keyA) {
		t.Errorf("got %x, %v, want %s", got, err, keyA)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("mode 640: got %v, want it refused with the cure", err)
	}
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no key: got %v, want an error that does not show it", err)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"allowed_ips", "endpoint", "name", "public_key", "share"}
	for word, want := range map[string]string{
		"alowed_ips": "allowed_ips", "allowed_ip": "allowed_ips", "enpdoint": "endpoint", "nmae": "name",
		"pubkey": "", "publickey": "public_key", "x": "", "": "", strings.Repeat("a", 1000): "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("Nearest(%.20q): got %q, want %q", word, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("interface = {port = 1}\npeer = [{name = 'a'}, {}]\nmesh.endpoint = 'a:1'"))
	f.Add([]byte("[[peer]]\n[[peer.x]]\n[peer.y]\nshare = true"))
	f.Add([]byte("a = [[[]], {b = {c = 1979-05-27}}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text)
		if err == nil {
			for _, p := range c.Peers {
				if p.PublicKey == [32]byte{} && !strings.Contains(string(text), base64.StdEncoding.EncodeToString(p.PublicKey[:])) {
					t.Errorf("accepted a peer without a key")
				}
			}
			return
		}
		var all Errors
		if !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("got %v of type %T, want Errors", err, err)
		}
		for _, e := range all {
			if e.Line < 1 || e.Column < 1 || e.Line > strings.Count(string(text), "\n")+2 || e.File != "f" {
				t.Errorf("got position %s outside of the file", e)
			}
		}
	})
}
