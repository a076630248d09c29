package osnet

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
)

// What macOS prints.
const (
	ifconfigText = `utun5: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1376
	options=6460<TSO4,TSO6,CHANNEL_IO,PARTIAL_CSUM,ZEROINVERT_CSUM>
	inet 100.70.1.2 --> 100.70.1.2 netmask 0xffffffff
	inet 10.1.0.1 --> 10.1.0.1 netmask 0xffff0000
	inet6 fe80::aede:48ff:fe00:1122%utun5 prefixlen 64 scopeid 0x12
	inet6 fd12:3456:789a::1 prefixlen 128
	nd6 options=201<PERFORMNUD,DAD>
`
	netstatText4 = `Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.1.1        UGScg                 en0
10.1               utun5              USc                 utun5
100.70/16          utun5              USc                 utun5
100.70.1.2         100.70.1.2         UH                  utun5
127                127.0.0.1          UCS                   lo0
127.0.0.1          127.0.0.1          UH                    lo0
169.254            link#6             UCS                   en0      !
192.168.1          link#6             UCS                   en0      !
192.168.1.1        0:11:22:33:44:55   UHLWIir               en0   1185
224.0.0/4          link#6             UmCS                  en0      !
`
	netstatText6 = `Routing tables

Internet6:
Destination                             Gateway                         Flags         Refs      Use   Mtu Netif Expire
default                                 fe80::%utun0                    UGcI             0        0 16384 utun0
::1                                     ::1                             UHL              5        4 16384 lo0
fd12:3456:789a::/48                     utun5                           USc              0        0  1376 utun5
fd12:3456:789a::1                       link#18                         UHL              0        0 16384 lo0
fe80::%lo0/64                           fe80::1%lo0                     UcI              0        0 16384 lo0
`
)

func TestParseIfconfig(t *testing.T) {
	got, err := parseIfconfig(ifconfigText)
	want := state{addrs: prefixes("100.70.1.2/32 10.1.0.1/16 fd12:3456:789a::1/128"), mtu: 1376, up: true, ipv6: true}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseIfconfig("ifconfig: interface utun9 does not exist\n"); err == nil {
		t.Error("no interface: got no error")
	}
	got, err = parseIfconfig("utun5: flags=8010<POINTOPOINT,UPPER> mtu 1500\n")
	if err != nil || got.up || got.mtu != 1500 {
		t.Errorf("down: got %+v, %v", got, err)
	}
}

func TestParseNetstat(t *testing.T) {
	var ours, all []string
	for _, r := range append(parseNetstat(netstatText4), parseNetstat(netstatText6)...) {
		all = append(all, r.dst.String())
		if r.ifname == "utun5" && r.static() {
			ours = append(ours, r.dst.String())
		}
	}
	if got, want := strings.Join(ours, " "), "10.1.0.0/16 100.70.0.0/16 fd12:3456:789a::/48"; got != want {
		t.Errorf("ours: got %s, want %s", got, want)
	}
	if len(all) != 13 {
		t.Errorf("all: got %d of %v, want 13", len(all), all)
	}
}

func TestParseDestination(t *testing.T) {
	for text, want := range map[string]string{
		"10": "10.0.0.0/8", "192.168.1": "192.168.1.0/24", "100.70/16": "100.70.0.0/16", "10.1.2.3": "10.1.2.3/32",
		"10.1.2.3/31": "10.1.2.2/31", "::1": "::1/128", "fe80::%lo0/64": "fe80::/64", "fd00::/8": "fd00::/8",
		"default": "", "": "", "1.2.3.4.5": "", "10/33": "", "link#6": "", "fd00::/x": "",
	} {
		got, ok := parseDestination(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: got %v %v, want %q", text, got, ok, want)
		}
	}
}

func TestCommand(t *testing.T) {
	p4, p6 := netip.MustParsePrefix("100.70.1.2/32"), netip.MustParsePrefix("fd01::/48")
	for want, s := range map[string]step{
		"/sbin/ifconfig utun5 mtu 1376":                                 {verb: setMTU, mtu: 1376},
		"/sbin/ifconfig utun5 up":                                       {verb: bringUp},
		"/sbin/ifconfig utun5 down":                                     {verb: bringDown},
		"/sbin/ifconfig utun5 inet 100.70.1.2/32 100.70.1.2 alias":      {verb: addAddr, prefix: p4},
		"/sbin/ifconfig utun5 inet 100.70.1.2 -alias":                   {verb: removeAddr, prefix: p4},
		"/sbin/ifconfig utun5 inet6 fd01::/48 alias":                    {verb: addAddr, prefix: p6},
		"/sbin/route -q -n add -inet6 fd01::/48 -interface utun5":       {verb: addRoute, prefix: p6},
		"/sbin/route -q -n delete -inet 100.70.1.2/32 -interface utun5": {verb: removeRoute, prefix: p4},
	} {
		if got := strings.Join(command("utun5", s), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOutcome(t *testing.T) {
	exit := errors.New("exit status 1")
	for _, c := range []struct {
		text      string
		err, want error
	}{
		{"", nil, nil},
		{"add net 100.70.0.0: gateway utun5\n", nil, nil},
		{"route: writing to routing socket: File exists\nadd net 100.70.0.0: gateway utun5: File exists\n", nil, os.ErrExist},
		{"route: writing to routing socket: not in table\n", exit, os.ErrNotExist},
		{"ifconfig: interface utun9 does not exist\n", exit, os.ErrNotExist},
		{"route: must be root to alter routing table\n", exit, os.ErrPermission},
		{"ifconfig: ioctl (SIOCDIFADDR): Operation not permitted", exit, os.ErrPermission},
		{"something else", exit, exit},
	} {
		if got := outcome([]string{"tool"}, c.text, c.err); !errors.Is(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.text, got, c.want)
		}
	}
	if outcome([]string{"route"}, "route: writing to routing socket: Network is unreachable", nil) == nil {
		t.Error("failure with exit status 0: got no error")
	}
}

func TestCheckUtun(t *testing.T) {
	for name, want := range map[string]bool{"utun": true, "utun0": true, "utun17": true, "warren0": false, "utun-1": false, "utunx": false, "": false} {
		if err := checkUtun(name); (err == nil) != want {
			t.Errorf("%q: got %v, want ok %v", name, err, want)
		}
	}
}

func FuzzParseTools(f *testing.F) {
	f.Add(ifconfigText)
	f.Add(netstatText4)
	f.Add(netstatText6)
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseIfconfig(text); err == nil && s.mtu == 0 {
			t.Error("no MTU and no error")
		}
		for _, r := range parseNetstat(text) {
			if !r.dst.IsValid() {
				t.Errorf("invalid route %v", r)
			}
		}
	})
}
