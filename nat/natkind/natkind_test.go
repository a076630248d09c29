package natkind

import (
	"net/netip"
	"testing"
)

func seen(pairs ...string) (out []Seen) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, Seen{Server: netip.MustParseAddrPort(pairs[i]), Mapped: netip.MustParseAddrPort(pairs[i+1])})
	}
	return out
}

func TestMappingOf(t *testing.T) {
	const a, a2, b, c = "203.0.113.2:9277", "203.0.113.2:40000", "203.0.113.6:9277", "203.0.113.10:9277"
	const x, y, z, own = "198.51.100.9:1000", "198.51.100.9:1001", "198.51.100.8:1000", "192.0.2.1:9277"
	local := func(addr netip.Addr) bool { return addr == netip.MustParseAddr("192.0.2.1") }
	tests := []struct {
		name string
		seen []Seen
		want Mapping
	}{
		{"nothing", nil, MappingUnknown},
		{"own address", seen(a, own), Unmapped},
		{"one server", seen(a, x), MappingUnknown},
		{"one server asked twice", seen(a, x, a, x), MappingUnknown},
		{"one server, two ports, one address", seen(a, x, a2, x), MappingUnknown},
		{"one server, two ports, two addresses", seen(a, x, a2, y), MappedByAddressAndPort},
		{"two servers, one address", seen(a, x, b, x), MappedIndependent},
		{"three servers, one differs: its word only", seen(a, x, b, x, c, y), MappedIndependent},
		{"three servers, one says two things", seen(a, x, a2, y, b, x, c, x), MappedIndependent},
		{"three servers, one has another own address", seen(a, own, b, own, c, y), Unmapped},
		{"three servers, three addresses", seen(a, x, b, y, c, z), MappedDependent},
		{"two servers, two ports", seen(a, x, b, y), MappedDependent},
		{"two servers, two outside addresses", seen(a, x, b, z), MappedDependent},
		{"by address: the other port sees the same", seen(a, x, a2, x, b, y), MappedByAddress},
		{"by address and port", seen(a, x, a2, y, b, z), MappedByAddressAndPort},
		{"independent, and of the port too", seen(a, x, a2, x, b, x), MappedIndependent},
		{"own address at one, a NAT at the other", seen(a, own, b, x), MappedDependent},
	}
	for _, tt := range tests {
		if got := MappingOf(tt.seen, local); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestFilteringOf(t *testing.T) {
	tests := []struct {
		a    Arrivals
		want Filtering
	}{
		{Arrivals{}, FilteringUnknown},
		{Arrivals{OtherPort: Arrived, OtherAddress: Arrived}, FilteredNot},
		{Arrivals{OtherPort: Missing, OtherAddress: Arrived}, FilteredNot}, // the missing one was lost
		{Arrivals{OtherAddress: Arrived}, FilteredNot},
		{Arrivals{OtherPort: Arrived, OtherAddress: Missing}, FilteredByAddress},
		{Arrivals{OtherPort: Arrived}, FilteredLoosely},
		{Arrivals{OtherPort: Missing, OtherAddress: Missing}, FilteredByAddressAndPort},
		{Arrivals{OtherPort: Missing}, FilteredByAddressAndPort},
		{Arrivals{OtherAddress: Missing}, FilteringUnknown},
	}
	for _, tt := range tests {
		if got := FilteringOf(tt.a); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.a, got, tt.want)
		}
	}
}

// TestPack holds the numbers that go over the wire, and that unknown ones do no harm.
func TestPack(t *testing.T) {
	for mapping := range Mapping(mappings) {
		for filtering := range Filtering(filterings) {
			for port := range PortMapping(portMappings) {
				for _, blocked := range []bool{false, true} {
					for ports := range PortsRandom + 1 {
						want := Self{mapping, filtering, port, blocked, ports, blocked != (ports == PortsUnknown)}
						if got := Unpack(want.Pack()); got != want {
							t.Fatalf("%+v: got %+v", want, got)
						}
					}
				}
			}
		}
	}
	if got, want := (Self{MappedByAddressAndPort, FilteredByAddressAndPort, PortMappingAbsent, true, PortsSequential, false}).Pack(), uint32(4+3<<3+2<<6+1<<9+2<<10); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	if got, want := Unpack(1<<32-1), (Self{UDPBlocked: true, Ports: PortsRandom, PortTaken: true}); got != want {
		t.Errorf("all bits: got %+v, want %+v", got, want)
	}
}

func TestWords(t *testing.T) {
	for m := range Mapping(mappings) {
		if (m.String() == "unknown") != (m == MappingUnknown) {
			t.Errorf("mapping %d: got %q", m, m)
		}
		if want := m == MappedByAddress || m == MappedByAddressAndPort || m == MappedDependent; m.Dependent() != want {
			t.Errorf("%s: got dependent %v", m, m.Dependent())
		}
	}
	for p := range PortMapping(portMappings) {
		if (p.String() == "unknown") != (p == PortMappingUnknown) {
			t.Errorf("port mapping %d: got %q", p, p)
		}
		if got, want := (Self{PortMapping: p}).LetsIn(), p == PortMapped; got != want {
			t.Errorf("%s: got lets in %v", p, got)
		}
	}
	for f := range Filtering(filterings) {
		if got, want := (Self{Filtering: f}).LetsIn(), f == FilteredNot || f == FilteredByAddress || f == FilteredLoosely; got != want {
			t.Errorf("%s: got lets in %v", f, got)
		}
		if (f.String() == "unknown") != (f == FilteringUnknown) {
			t.Errorf("filtering %d: got %q", f, f)
		}
	}
}
