package osnettest_test

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

func TestMachine(t *testing.T) {
	m := osnettest.New()
	l, err := m.Open("w0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open("w0", nil); err == nil {
		t.Error("open twice: got no error")
	}
	a4, a6 := netip.MustParsePrefix("100.70.1.2/32"), netip.MustParsePrefix("fd01::2/128")
	r4, r6 := netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd01::/48")
	config := osnet.Config{Addrs: []netip.Prefix{a6, a4}, Routes: []netip.Prefix{r6, r4}, MTU: 1376, Up: true}
	for range 2 {
		if err := l.Set(config); err != nil {
			t.Fatal(err)
		}
	}
	want := osnet.Config{Addrs: []netip.Prefix{a4, a6}, Routes: []netip.Prefix{r4, r6}, MTU: 1376, Up: true}
	if got, ok := m.Config("w0"); !ok || !reflect.DeepEqual(got, want) || m.Writes() != 1 {
		t.Errorf("got %+v %v after %d writes, want %+v after 1", got, ok, m.Writes(), want)
	}
	ch, err := l.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-ch // what was set
	m.Disturb("w0", func(have *osnet.Config) { have.Addrs, have.Up = have.Addrs[1:], false })
	<-ch
	lost, err := l.Mend()
	if want := []string{"address 100.70.1.2/32 gone", "down"}; err != nil || !slices.Equal(lost, want) {
		t.Errorf("disturbed: got %q and %v, want %q", lost, err, want)
	}
	if got, _ := m.Config("w0"); !reflect.DeepEqual(got, want) {
		t.Errorf("mended: got %+v, want %+v", got, want)
	}
	m.Without6()
	m.Take(r4)
	if err := l.Set(config); !errors.Is(err, osnet.ErrNoIPv6) || !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v, want ErrNoIPv6 and os.ErrExist", err)
	}
	if got, _ := m.Config("w0"); len(got.Routes) != 0 || len(got.Addrs) != 1 {
		t.Errorf("got %+v, want one address and no route", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, ok := m.Config("w0"); ok {
		t.Error("after close: still there")
	}
	if err := l.Set(config); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("set after close: got %v, want os.ErrNotExist", err)
	}
}
