package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Parse reads the text of a file; name stands in its errors. The error, if any, is an Errors.
func Parse(name string, text []byte) (Config, error) {
	c, _, err := ParseAt(name, text)
	return c, err
}

// Places are where the settings of a file stand in it, for mistakes that are none of the file by itself.
type Places struct {
	file    string
	allowed [][]position // by peer, in the order of AllowedIPs
}

// Allowed is a mistake in one of the allowed_ips of a peer, by their places in Config.Peers and Peer.AllowedIPs.
func (p Places) Allowed(c Config, peer, prefix int, message string) *Error {
	at := p.allowed[peer][prefix]
	return &Error{File: p.file, Line: at.line, Column: at.column, Message: fmt.Sprintf("allowed_ips %q: %s", c.Peers[peer].AllowedIPs[prefix], message)}
}

// ParseAt is Parse, and tells where what stands.
func ParseAt(name string, text []byte) (Config, Places, error) {
	r := &reader{file: name, names: map[string]position{}, keys: map[[32]byte]position{}}
	if len(text) > maxFile {
		r.fail(position{1, 1}, "file of more than %d bytes", maxFile)
		return Config{}, Places{}, r.errors
	}
	root, err := parseDocument(text)
	if err != nil {
		err.File = name
		return Config{}, Places{}, Errors{err}
	}
	config := Config{Mesh: Mesh{Anchor: "auto", Incoming: true, LAN: true, Names: "auto"}}
	r.table(root, "the file", map[string]func(*value){
		"interface": func(v *value) { r.interfaceTable(v, &config.Interface) },
		"mesh":      func(v *value) { r.meshTable(v, &config.Mesh) },
		"peer":      func(v *value) { r.peerTables(v, &config) },
	})
	r.overlaps(root, config.Peers)
	if len(r.errors) > 0 {
		slices.SortStableFunc(r.errors, func(a, b *Error) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return Config{}, Places{}, r.errors
	}
	return config, Places{name, r.allowed}, nil
}

// reader turns the tree into a Config and collects what is wrong.
type reader struct {
	file   string
	errors Errors
	names  map[string]position   // of peers so far
	keys   map[[32]byte]position // of peers so far

	allowed [][]position // of each peer's allowed_ips
}

// maxMistakes bounds the list: a file that is no configuration at all would have one for each line.
const maxMistakes = 50

func (r *reader) fail(at position, format string, args ...any) {
	if len(r.errors) == maxMistakes {
		return
	}
	r.errors = append(r.errors, &Error{File: r.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)})
}

// table gives each key of a table to its reader and refuses the others with a suggestion.
func (r *reader) table(v *value, where string, known map[string]func(*value)) {
	if v.kind != kindTable {
		r.fail(v.at, "%s: want a table, got %s", where, article(v.kind))
		return
	}
	for _, e := range v.keys {
		if read, ok := known[e.key]; ok {
			read(e.value)
			continue
		}
		var names []string
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		if near := Nearest(e.key, names); near != "" {
			r.fail(e.at, "unknown key %q; did you mean %q?", e.key, near)
		} else {
			r.fail(e.at, "unknown key %q in %s; it knows %s", e.key, where, strings.Join(names, ", "))
		}
	}
}

func (r *reader) interfaceTable(v *value, i *Interface) {
	r.table(v, "[interface]", map[string]func(*value){
		"name": func(v *value) {
			r.text(v, "name", func(s string) error {
				// IFNAMSIZ of the kernel is 16 with the zero at the end; it takes % for a pattern, and keeps settings under the other two.
				if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/:% \t\r\n\v\f") || s == "all" || s == "default" {
					return fmt.Errorf("want 1 to 15 characters without spaces, slashes, colons and percent signs, like \"warren0\"")
				}
				i.Name = s
				return nil
			})
		},
		"port": func(v *value) { i.Port = uint16(r.integer(v, "port", 1, 65535)) },
		"mtu": func(v *value) {
			// 576 is the least that IPv4 hosts take (RFC 791), 1,280 the least that IPv6 links carry (RFC 8200): the overlay is IPv6.
			i.MTU = int(r.integer(v, "mtu", 1280, 65535))
		},
		"private_key_file": func(v *value) { r.path(v, "private_key_file", &i.PrivateKeyFile) },
		"addresses": func(v *value) {
			r.list(v, "addresses", func(s string) error {
				prefix, err := netip.ParsePrefix(s)
				if err != nil {
					return prefixError(s)
				}
				if err := ownAddress(prefix); err != nil {
					return err
				}
				i.Addresses = append(i.Addresses, prefix)
				return nil
			})
		},
	})
}

func (r *reader) meshTable(v *value, m *Mesh) {
	r.table(v, "[mesh]", map[string]func(*value){
		"anchor": func(v *value) {
			r.text(v, "anchor", func(s string) error {
				if s != "auto" && s != "always" && s != "never" {
					return fmt.Errorf("want \"auto\", \"always\" or \"never\"")
				}
				m.Anchor = s
				return nil
			})
		},
		"ipv4": func(v *value) {
			if v.kind == kindBool {
				m.IPv4 = new(v.truth)
			} else {
				r.fail(v.at, "ipv4: want true or false without quotes, got %s", article(v.kind))
			}
		},
		"incoming":       func(v *value) { r.truth(v, "incoming", &m.Incoming) },
		"lan":            func(v *value) { r.truth(v, "lan", &m.LAN) },
		"stream_ports":   func(v *value) { m.StreamPorts = r.ports(v, "stream_ports") },
		"fallback_ports": func(v *value) { m.StreamPorts = r.ports(v, "fallback_ports") }, // its name before 1.0
		"names": func(v *value) {
			r.text(v, "names", func(s string) error {
				if s != "auto" && s != "resolved" && s != "hosts" && s != "off" {
					return fmt.Errorf("want \"auto\", \"resolved\", \"hosts\" or \"off\"")
				}
				m.Names = s
				return nil
			})
		},
		"relay_limit": func(v *value) {
			r.text(v, "relay_limit", func(s string) (err error) {
				m.RelayLimit, err = parseRate(s)
				return err
			})
		},
		"endpoint": func(v *value) {
			add := func(s string) error {
				if err := CheckHostPort(s); err != nil {
					return err
				}
				m.Endpoints = append(m.Endpoints, s)
				return nil
			}
			if v.kind == kindString {
				r.text(v, "endpoint", add)
			} else {
				r.list(v, "endpoint", add)
			}
		},
	})
}

func (r *reader) peerTables(v *value, c *Config) {
	if v.kind != kindArray {
		r.fail(v.at, "peer: want [[peer]] in double brackets, since there may be several")
		return
	}
	for _, item := range v.items {
		var peer Peer
		r.allowed = append(r.allowed, nil)
		r.peerTable(item, &peer)
		c.Peers = append(c.Peers, peer)
	}
}

func (r *reader) peerTable(v *value, p *Peer) {
	r.table(v, "[[peer]]", map[string]func(*value){
		"name": func(v *value) { r.text(v, "name", func(s string) error { return r.peerName(v.at, s, p) }) },
		"public_key": func(v *value) {
			r.text(v, "public_key", func(s string) error {
				key, err := ParseKey(s)
				if err != nil {
					return err
				}
				if key == ([32]byte{}) {
					return fmt.Errorf("is all zeros: no key of anybody")
				}
				if first, double := r.keys[key]; double {
					return fmt.Errorf("is that of the peer in line %d already", first.line)
				}
				r.keys[key], p.PublicKey = v.at, key
				return nil
			})
		},
		"allowed_ips": func(v *value) {
			r.list(v, "allowed_ips", func(s string) error {
				prefix, err := parseAllowed(s)
				if err != nil {
					return err
				}
				p.AllowedIPs = append(p.AllowedIPs, prefix)
				return nil
			})
			for _, item := range v.items { // as many as there are prefixes, or the file is wrong
				r.allowed[len(r.allowed)-1] = append(r.allowed[len(r.allowed)-1], item.at)
			}
		},
		"endpoint": func(v *value) {
			r.text(v, "endpoint", func(s string) error {
				p.Endpoint = s
				return CheckHostPort(s)
			})
		},
		"preshared_key_file":   func(v *value) { r.path(v, "preshared_key_file", &p.PresharedKeyFile) },
		"persistent_keepalive": func(v *value) { r.keepalive(v, p) },
		"share":                func(v *value) { r.truth(v, "share", &p.Share) },
	})
	if v.kind != kindTable {
		return
	}
	if v.get("public_key") == nil {
		r.fail(v.at, "[[peer]] without public_key")
	}
	if v.get("allowed_ips") == nil {
		r.fail(v.at, "[[peer]] without allowed_ips: nothing would be sent to it; like allowed_ips = [\"100.70.0.9/32\"]")
	}
	if p.Name == "" {
		p.Name = KeyText(p.PublicKey)[:10]
	}
}

func (r *reader) peerName(at position, s string, p *Peer) error {
	if s == "" || len(s) > 63 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return fmt.Errorf("want 1 to 63 letters, digits and signs without spaces")
	}
	if first, double := r.names[s]; double {
		return fmt.Errorf("is that of the peer in line %d already", first.line)
	}
	r.names[s], p.Name = at, s
	return nil
}

func (r *reader) keepalive(v *value, p *Peer) {
	r.text(v, "persistent_keepalive", func(s string) error {
		d, err := time.ParseDuration(s)
		// WireGuard counts whole seconds in 16 bits.
		if err != nil || d < 0 || d > 65535*time.Second || d%time.Second != 0 {
			return fmt.Errorf("want whole seconds up to 65535s, like \"25s\"")
		}
		p.Keepalive = d
		return nil
	})
}

// overlaps refuses a prefix that two peers claim: WireGuard would give it silently to the last one.
func (r *reader) overlaps(root *value, peers []Peer) {
	tables := root.get("peer")
	if tables == nil || len(tables.items) != len(peers) {
		return
	}
	owner := map[netip.Prefix]int{}
	for i, p := range peers {
		for _, prefix := range p.AllowedIPs {
			if first, taken := owner[prefix]; taken && first != i {
				r.fail(tables.items[i].get("allowed_ips").at, "allowed_ips: %s is routed to peer %q already", prefix, peers[first].Name)
			} else {
				owner[prefix] = i
			}
		}
	}
}

// The readers of single values. Each says the name of the setting, so that the message stands alone.

func (r *reader) text(v *value, name string, take func(string) error) {
	if v.kind != kindString {
		r.fail(v.at, "%s: want a string in quotes, got %s", name, article(v.kind))
		return
	}
	if err := take(v.text); err != nil {
		r.fail(v.at, "%s %s: %v", name, strconv.Quote(clip(v.text)), err)
	}
}

func (r *reader) integer(v *value, name string, low, high int64) int64 {
	switch {
	case v.kind != kindInteger:
		r.fail(v.at, "%s: want an integer without quotes, got %s", name, article(v.kind))
	case v.number < low || v.number > high:
		r.fail(v.at, "%s %d: want %d to %d", name, v.number, low, high)
	default:
		return v.number
	}
	return 0
}

// maxPorts bounds a list of ports.
const maxPorts = 4

func (r *reader) ports(v *value, name string) (ports []uint16) {
	if v.kind != kindArray || v.tables {
		r.fail(v.at, "%s: want a list of ports like [443], got %s", name, article(v.kind))
		return nil
	}
	if len(v.items) > maxPorts {
		r.fail(v.at, "%s: want at most %d ports, got %d", name, maxPorts, len(v.items))
		return nil
	}
	for _, item := range v.items {
		if port := uint16(r.integer(item, name, 1, 65535)); port != 0 {
			ports = append(ports, port)
		}
	}
	return ports
}

func (r *reader) truth(v *value, name string, into *bool) {
	if v.kind != kindBool {
		r.fail(v.at, "%s: want true or false without quotes, got %s", name, article(v.kind))
		return
	}
	*into = v.truth
}

func (r *reader) list(v *value, name string, take func(string) error) {
	if v.kind != kindArray || v.tables {
		r.fail(v.at, "%s: want a list of strings like [\"…\", \"…\"], got %s", name, article(v.kind))
		return
	}
	for _, item := range v.items {
		r.text(item, name, take)
	}
}

func (r *reader) path(v *value, name string, into *string) {
	if _, err := ParseKey(v.text); v.kind == kindString && err == nil {
		r.fail(v.at, "%s: want the path of a file that holds the key, not the key itself", name)
		return
	}
	r.text(v, name, func(s string) error {
		if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
			return fmt.Errorf("want an absolute path")
		}
		*into = s
		return nil
	})
}

// parseRate reads a rate in bits a second and returns it in bytes.
func parseRate(s string) (int, error) {
	number, unit, _ := strings.Cut(s, " ")
	scale := map[string]float64{"kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}[unit]
	n, err := strconv.ParseFloat(number, 64)
	// 100 kbit/s is little for one member; 100 Gbit/s is beyond any network card that this runs on.
	if rate := n * scale; err == nil && rate >= 1e5 && rate <= 1e11 {
		return int(rate / 8), nil
	}
	return 0, fmt.Errorf("want a number and a unit of kbit/s, Mbit/s or Gbit/s, from \"100 kbit/s\" to \"100 Gbit/s\"")
}

func parseAllowed(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, prefixError(s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length; did you mean %q?", masked)
	}
	return prefix, nil
}

// ownAddress says why an interface cannot have an address.
func ownAddress(p netip.Prefix) error {
	switch a := p.Addr(); {
	case a.Is4In6():
		return fmt.Errorf("is IPv4 in the form of IPv6; did you mean %q?", netip.PrefixFrom(a.Unmap(), max(0, p.Bits()-96)))
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("is no address of one machine")
	case a.IsLoopback():
		return fmt.Errorf("is a loopback address, which no other machine can reach")
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("is link-local: every interface has such addresses")
	}
	return nil
}

func prefixError(s string) error {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return fmt.Errorf("want an address with a length; did you mean %q?", netip.PrefixFrom(addr, addr.BitLen()))
	}
	return fmt.Errorf("want an address with a length, like \"100.70.0.9/32\"")
}

// CheckHostPort says what is wrong with a HOST:PORT; host may be a name or an address.
func CheckHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || len(host) > 253 || strings.ContainsFunc(host, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return fmt.Errorf("want HOST:PORT, like \"vpn.example.org:9277\" or \"[2001:db8::1]:9277\"")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("want a port of 1 to 65535 after the colon")
	}
	if a, err := netip.ParseAddr(host); err == nil && (a.IsUnspecified() || a.IsMulticast()) {
		return fmt.Errorf("want the address of one machine")
	}
	return nil
}

func article(k kind) string {
	switch k {
	case kindInteger, kindArray:
		return "an " + string(k)
	default:
		return "a " + string(k)
	}
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:57] + "…"
	}
	return s
}
