package record

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// TestDevicesOnTheWire asserts that devices are read as they were written, and that what breaks a bound is malformed.
func TestDevicesOnTheWire(t *testing.T) {
	addr := netip.MustParseAddr
	good := []Device{
		{Name: "phone", Addrs: []netip.Addr{addr("100.70.0.9"), addr("fd00::9")}, Tags: []string{"lab", "os:ios"}},
		{Name: "printer", Addrs: []netip.Addr{addr("fd00::a")}},
	}
	if got, err := splitDevices(joinDevices(good)); err != nil || !reflect.DeepEqual(got, good) {
		t.Errorf("got %+v, %v, want %+v", got, err, good)
	}
	many := make([]Device, MaxDevices+1)
	for i := range many {
		many[i] = good[1]
	}
	for name, bad := range map[string][]deviceWire{
		"too many":            joinDevices(many),
		"no name":             {{Addrs: [][]byte{{100, 70, 0, 9}}}},
		"a name that is none": {{Name: "My Phone", Addrs: [][]byte{{100, 70, 0, 9}}}},
		"no address":          {{Name: "phone"}},
		"three addresses":     {{Name: "phone", Addrs: [][]byte{{1, 2, 3, 4}, {1, 2, 3, 5}, {1, 2, 3, 6}}}},
		"half an address":     {{Name: "phone", Addrs: [][]byte{{1, 2, 3}}}},
		"IPv4 in IPv6":        {{Name: "phone", Addrs: [][]byte{addr("::ffff:1.2.3.4").AsSlice()}}},
		"a tag that is none":  {{Name: "phone", Addrs: [][]byte{{1, 2, 3, 4}}, Tags: []string{"A B"}}},
		"too many tags":       {{Name: "phone", Addrs: [][]byte{{1, 2, 3, 4}}, Tags: strings.Split(strings.Repeat("x,", 17), ",")}},
	} {
		if got, err := splitDevices(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v, want it malformed", name, got, err)
		}
	}
}
