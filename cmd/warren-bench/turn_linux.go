package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/turn/v4"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel"
)

// The only user of the TURN server.
const turnUser, turnPassword, turnRealm = "bench", "bench", "bench"

// turnJob is what a process with roleTURN is told: where to listen, and on which address relayed ports are.
type turnJob struct {
	Server  netip.AddrPort
	Relayed netip.Addr
}

// serveTURN is pion's server as its documentation has it.
func serveTURN(ctx context.Context) error {
	var j turnJob
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	listener, err := net.ListenPacket("udp4", j.Server.String())
	if err != nil {
		return err
	}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm: turnRealm,
		AuthHandler: func(user, realm string, _ net.Addr) ([]byte, bool) {
			return turn.GenerateAuthKey(user, realm, turnPassword), user == turnUser
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            listener,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: j.Relayed.AsSlice(), Address: j.Relayed.String()},
		}},
	})
	if err != nil {
		return err
	}
	defer server.Close()
	return untilParentEnds(ctx)
}

// turnClientJob is what a process with roleTURNClient is told.
type turnClientJob struct {
	Name     string
	Server   netip.AddrPort
	Private  wgtypes.Key
	Peer     wgtypes.Key
	Endpoint netip.AddrPort // of the far end, as the relay reaches it
}

// serveTURNClient is WireGuard over a relayed address of pion's client.
func serveTURNClient(ctx context.Context) error {
	var j turnClientJob
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	socket, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: j.Server.String(), TURNServerAddr: j.Server.String(), Conn: socket, Username: turnUser, Password: turnPassword, Realm: turnRealm,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		return err
	}
	relayed, err := client.Allocate()
	if err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	link, err := tun.CreateTUN(j.Name, tunnel.DefaultMTU)
	if err != nil {
		return err
	}
	dev := device.NewDevice(link, &packetBind{conn: relayed}, device.NewLogger(device.LogLevelError, ""))
	defer dev.Close()
	err = dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\n",
		hex.EncodeToString(j.Private[:]), hex.EncodeToString(j.Peer[:]), j.Endpoint))
	if err != nil {
		return err
	}
	if err := dev.Up(); err != nil {
		return err
	}
	return untilParentEnds(ctx)
}

// packetBind is WireGuard's socket over a net.PacketConn: one packet at a time, which is all that pion's has.
type packetBind struct{ conn net.PacketConn }

func (b *packetBind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	return []conn.ReceiveFunc{b.receive}, 0, b.conn.SetReadDeadline(time.Time{})
}

func (b *packetBind) receive(bufs [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
	n, addr, err := b.conn.ReadFrom(bufs[0])
	if err != nil {
		return 0, net.ErrClosed
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("packet from no UDP address")
	}
	sizes[0], from[0] = n, &conn.StdNetEndpoint{AddrPort: udp.AddrPort()}
	return 1, nil
}

func (b *packetBind) Send(bufs [][]byte, to conn.Endpoint) error {
	addr := net.UDPAddrFromAddrPort(to.(*conn.StdNetEndpoint).AddrPort)
	for _, p := range bufs {
		if _, err := b.conn.WriteTo(p, addr); err != nil {
			return err
		}
	}
	return nil
}

func (b *packetBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	return &conn.StdNetEndpoint{AddrPort: addr}, err
}

func (b *packetBind) Close() error         { return b.conn.SetReadDeadline(time.Now()) }
func (b *packetBind) SetMark(uint32) error { return nil }
func (b *packetBind) BatchSize() int       { return 1 }
