package tunnel

import (
	"bytes"
	"net"
	"testing"
)

// sink is a connection that keeps what is written.
type sink struct {
	net.Conn
	got bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) { return s.got.Write(p) }

// What the tools of WireGuard are told has no addresses that mean something to this program alone, wherever the writes are cut.
func TestPlainEndpoints(t *testing.T) {
	const said = "private_key=00\nlisten_port=9277\npublic_key=01\nendpoint=[100::100:0:0:1]:9\nlast_handshake_time_sec=0\n" +
		"public_key=02\nendpoint=203.0.113.6:9277\nallowed_ip=100.64.0.1/32\npublic_key=03\nendpoint=[100::200:0:0:7]:9\nallowed_ip=100::/64\n" +
		"public_key=04\nendpoint=[2001:db8::1]:9277\npublic_key=05\nendpoint=[100::300:0:0:2]:9\nerrno=0\n\n"
	const want = "private_key=00\nlisten_port=9277\npublic_key=01\nlast_handshake_time_sec=0\n" +
		"public_key=02\nendpoint=203.0.113.6:9277\nallowed_ip=100.64.0.1/32\npublic_key=03\nallowed_ip=100::/64\n" +
		"public_key=04\nendpoint=[2001:db8::1]:9277\npublic_key=05\nerrno=0\n\n"
	for size := 1; size <= len(said); size++ {
		out := new(sink)
		c := &plain{Conn: out}
		for text := []byte(said); len(text) > 0; {
			n := min(size, len(text))
			if wrote, err := c.Write(text[:n]); wrote != n || err != nil {
				t.Fatalf("got %d, %v, want %d", wrote, err, n)
			}
			text = text[n:]
		}
		if got := out.got.String(); got != want {
			t.Fatalf("in pieces of %d:\ngot  %q\nwant %q", size, got, want)
		}
	}
}
