package verdict

import (
	"net/netip"
	"testing"
	"time"
)

func TestStatic(t *testing.T) {
	at := netip.MustParseAddrPort("198.51.100.1:51820")
	tests := []struct {
		name string
		p    StaticPeer
		kind Kind
		says []string // parts of conclusion, cause and fix
	}{
		{"up", StaticPeer{Addr: at, LastHandshake: before(time.Second)}, Direct, []string{"static peer, and reached directly"}},
		{"heard before", StaticPeer{Addr: at, LastHandshake: before(30 * time.Second)}, StaticIdle, []string{"idle", "last heard 30 seconds ago; whether it is there now is not known"}},
		{"heard before, and asked in vain", StaticPeer{Addr: at, LastHandshake: before(30 * time.Second), Unanswered: before(20 * time.Second)}, StaticMute,
			[]string{"b is a static peer, and does not answer", "it does not answer; last heard 30 seconds ago"}},
		{"name unknown", StaticPeer{Endpoint: "phone.example:51820"}, StaticName, []string{"phone.example:51820 is not known"}},
		{"has to call", StaticPeer{}, StaticSilent, []string{"UDP port 9277, and the public key to KEY="}},
		{"unused", StaticPeer{Addr: at}, StaticUnused, []string{"persistent_keepalive"}},
		{"unanswered", StaticPeer{Addr: at, TxBytes: 444}, StaticUnanswered, []string{"444 bytes were sent to 198.51.100.1:51820", "has to be KEY=", "UDP port 51820"}},
		{"half a handshake", StaticPeer{Addr: at, TxBytes: 444, RxBytes: 92}, StaticHandshake, []string{"preshared"}},
		{"idle", StaticPeer{Addr: at, TxBytes: 444, RxBytes: 92, LastHandshake: before(time.Hour)}, StaticIdle, []string{"60 minutes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.p.Now, tt.p.Name, tt.p.Port, tt.p.PublicKey = judgedAt, "b", 9277, "KEY="
			check(t, JudgeStatic(tt.p), tt.kind, tt.says)
		})
	}
}
