// Package zone is what a mesh's names mean: which addresses a name has, whose an address is, and which questions are the mesh's to answer.
//
// Who is in it is decided by the caller, out of records and settings; how questions come in is left to mesh/dns, and how the machine's resolver
// learns of it to tunnel/osnames.
//
// A Zone is a value that nobody changes: it may be used concurrently. The zero of *Zone, nil, knows nothing.
package zone

import (
	"net/netip"
	"slices"
	"strings"
)

// Host is one name and what it stands for.
type Host struct {
	Name  string // a label in lower case
	Addrs []netip.Addr
}

// Zone is the names of a mesh at one moment.
type Zone struct {
	domain  string
	self    string
	names   map[string][]netip.Addr
	addrs   map[netip.Addr]string
	hosts   []Host
	reverse []string
	serial  uint32
}

// Options are what a Zone is made of.
type Options struct {
	Domain   string         // in lower case, without a dot at its end
	Self     string         // the name of this node; "": it has none
	Hosts    []Host         // of two with one name the first counts
	Networks []netip.Prefix // of the overlay: their addresses are the mesh's to name
}

// reserved are names that programs ask for by themselves and whose answers they obey: a member that is called so gets no name (RFC 6761, 6.3;
// proxies and tunnels that are set up by themselves).
var reserved = []string{"localhost", "wpad", "isatap"}

// New makes a zone. Names that are no labels, or reserved, are left out, as are addresses outside of the networks.
func New(o Options) *Zone {
	z := &Zone{domain: o.Domain, names: make(map[string][]netip.Addr, len(o.Hosts)), addrs: make(map[netip.Addr]string, len(o.Hosts))}
	for _, network := range o.Networks {
		z.reverse = append(z.reverse, reverseZones(network)...)
	}
	for _, h := range o.Hosts {
		if _, taken := z.names[h.Name]; taken || !IsLabel(h.Name) || slices.Contains(reserved, h.Name) {
			continue
		}
		var addrs []netip.Addr
		for _, addr := range h.Addrs {
			if within(o.Networks, addr) && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
		if len(addrs) == 0 {
			continue
		}
		z.names[h.Name] = addrs
		z.hosts = append(z.hosts, Host{h.Name, addrs})
		for _, addr := range addrs {
			if _, taken := z.addrs[addr]; !taken {
				z.addrs[addr] = h.Name
			}
		}
	}
	if _, named := z.names[o.Self]; named {
		z.self = o.Self
	}
	slices.SortFunc(z.hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	z.serial = z.sum()
	return z
}

func within(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// IsLabel reports whether a name can be a label of a host's name (RFC 1123, 2.1), in lower case.
func IsLabel(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// Domain is that of the mesh, without a dot at its end.
func (z *Zone) Domain() string {
	if z == nil {
		return ""
	}
	return z.domain
}

// Self is the full name of this node, "" without one.
func (z *Zone) Self() string {
	if z == nil || z.self == "" {
		return ""
	}
	return z.self + "." + z.domain
}

// Hosts are all names, sorted.
func (z *Zone) Hosts() []Host {
	if z == nil {
		return nil
	}
	return z.hosts
}

// Reverse are the zones below in-addr.arpa and ip6.arpa in which addresses of the overlay lie, without a dot at the end. They are as wide as the
// networks, not wider: a network that ends within a label has several.
func (z *Zone) Reverse() []string {
	if z == nil {
		return nil
	}
	return z.reverse
}

// Serial changes with the names (RFC 1035, 3.3.13).
func (z *Zone) Serial() uint32 {
	if z == nil {
		return 0
	}
	return z.serial
}

// Equal reports whether two zones say the same.
func (z *Zone) Equal(other *Zone) bool {
	if z == nil || other == nil {
		return z == other
	}
	return z.domain == other.domain && z.self == other.self && slices.Equal(z.reverse, other.reverse) && slices.EqualFunc(z.hosts, other.hosts, func(a, b Host) bool {
		return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs)
	})
}

// sum is a digest of the names (FNV-1a), never 0.
func (z *Zone) sum() uint32 {
	sum := uint32(2166136261)
	add := func(text string) {
		for _, b := range append([]byte(text), 0) {
			sum = (sum ^ uint32(b)) * 16777619
		}
	}
	for _, h := range z.hosts {
		add(h.Name)
		for _, addr := range h.Addrs {
			add(addr.String())
		}
	}
	return max(sum, 1)
}

// Kind is what a name is in a zone.
type Kind uint8

// The kinds of names.
const (
	Foreign Kind = iota // not below the domain, nor an address of the overlay: not the mesh's to answer
	Apex                // the domain itself, or a zone of addresses
	Unknown             // below it, and nobody has it
	Named               // of a host
	Pointer             // the name of an address (RFC 1035, 3.5; RFC 3596, 2.5) that a host has
	Inner               // above the name of an address that a host has: nothing stands there itself (RFC 8020)
)

// Found is what a question's name stands for.
type Found struct {
	Kind  Kind
	Zone  string       // the domain or zone of addresses in which it lies
	Addrs []netip.Addr // of Named
	Name  string       // the full name of the host, of Pointer
}

// Find looks a full name up: without a dot at its end, in any case. Names of a host with a single label are not the mesh's: what a resolver
// makes of them, by a search domain, is a full name.
func (z *Zone) Find(name string) Found {
	name = lower(name)
	if z == nil || z.domain == "" {
		return Found{}
	}
	if name == z.domain {
		return Found{Kind: Apex, Zone: z.domain}
	}
	if label, ok := strings.CutSuffix(name, "."+z.domain); ok {
		if addrs, known := z.names[label]; known {
			return Found{Kind: Named, Zone: z.domain, Addrs: addrs}
		}
		return Found{Kind: Unknown, Zone: z.domain}
	}
	for _, zone := range z.reverse {
		if name == zone {
			return Found{Kind: Apex, Zone: zone}
		}
		if strings.HasSuffix(name, "."+zone) {
			return z.pointer(name, zone)
		}
	}
	return Found{}
}

// pointer is Find for what lies in a zone of addresses.
func (z *Zone) pointer(name, zone string) Found {
	if addr, ok := addrOf(name); ok {
		if host, known := z.addrs[addr]; known {
			return Found{Kind: Pointer, Zone: zone, Name: host + "." + z.domain}
		}
		return Found{Kind: Unknown, Zone: zone}
	}
	for addr := range z.addrs {
		if strings.HasSuffix(ReverseName(addr), "."+name) {
			return Found{Kind: Inner, Zone: zone}
		}
	}
	return Found{Kind: Unknown, Zone: zone}
}

// Short takes the domain, and a dot at the end, from a name that a person says; what lies elsewhere stays as it is.
func Short(domain, name string) string {
	word := lower(strings.TrimSuffix(name, "."))
	if label, ok := strings.CutSuffix(word, "."+domain); ok && domain != "" {
		return label
	}
	return name
}

// lower is strings.ToLower for ASCII alone, as DNS compares (RFC 4343).
func lower(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}
