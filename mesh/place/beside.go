package place

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"warren/mesh/disk"
	"warren/mesh/identity"
	"warren/nat/beacon"
	"warren/tunnel/echo"
	"warren/tunnel/osnet"
)

// Several meshes on one machine: each has an interface, a port and networks of its own. Which, is settled at create or join, beside those that are
// there, and kept, so that it does not depend on who starts first.

// Claim is what a mesh on this machine takes for itself.
type Claim struct {
	Mesh      string
	Interface string         // "" where the system chooses (macOS)
	Port      uint16         // UDP, and TCP where it listens
	Prefixes  []netip.Prefix // of its overlay
}

// Claims reads what the meshes in a directory of states take, by their settings, in the order of their names. One that is damaged is left out.
func Claims(root string) (out []Claim) {
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		if ValidName(e.Name()) != nil {
			continue
		}
		s := &State{Dir: filepath.Join(root, e.Name())}
		raw, err := os.ReadFile(filepath.Join(s.Dir, fileSettings))
		if err != nil || json.Unmarshal(raw, &s.Settings) != nil {
			continue
		}
		c := Claim{Mesh: e.Name(), Interface: s.Settings.Interface, Port: s.Settings.port()}
		if c.Interface == "" {
			c.Interface = defaultInterface(0)
		}
		if s.readChain() == nil {
			c.Prefixes = []netip.Prefix{s.MeshID().Prefix6()}
			if terms, err := identity.RootTermsOf(s.Root()); err == nil && terms.Prefix4.IsValid() && !s.Settings.NoIPv4 {
				c.Prefixes = append(c.Prefixes, terms.Prefix4)
			}
		}
		out = append(out, c)
	}
	return out
}

// defaultInterface is the name of the nth interface, "" where the system numbers them.
func defaultInterface(n int) string {
	base, numbered := strings.CutSuffix(osnet.DefaultName, "0")
	if !numbered {
		return ""
	}
	return fmt.Sprint(base, n)
}

// maxMeshes bounds the search for a free interface or port.
const maxMeshes = 256

// used are the ports that agents have beside the one that is chosen: a socket of all addresses would be in their way.
var used = map[uint16]string{echo.Port: "pings", beacon.Port: "the search for neighbours"}

// ErrClaimed is wrapped by the errors of Create and Join about a port that was asked for and is another mesh's.
var ErrClaimed = errors.New("another mesh on this machine has it")

// settle chooses the interface and the port of a new mesh beside what the others claim, and what this machine has in use now. A port that is
// asked for, not 0, is taken as it is.
func settle(claims []Claim, asked uint16) (ifname string, port uint16, err error) {
	for n := range maxMeshes {
		ifname = defaultInterface(n)
		if _, err := net.InterfaceByName(ifname); ifname == "" || err != nil && !slices.ContainsFunc(claims, func(c Claim) bool { return c.Interface == ifname }) {
			break
		}
	}
	if asked != 0 {
		if used[asked] != "" {
			return "", 0, fmt.Errorf("UDP port %d is taken by %s in every mesh: choose another one", asked, used[asked])
		}
		for _, c := range claims {
			if c.Port == asked {
				return "", 0, fmt.Errorf("UDP port %d: %w: %s; give this one another port, or let one be chosen", asked, ErrClaimed, c.Mesh)
			}
		}
		return ifname, asked, nil
	}
	for n := range uint16(maxMeshes) {
		port = DefaultPort + n
		if used[port] == "" && !slices.ContainsFunc(claims, func(c Claim) bool { return c.Port == port }) && portFree(port) {
			return ifname, port, nil
		}
	}
	return ifname, DefaultPort, nil // the agent says what is in its way
}

// portFree reports whether a UDP port can be had now.
func portFree(port uint16) bool {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return false
	}
	socket.Close()
	return true
}

// routesBeside are the routes of this machine that have to do with these prefixes, with the networks of the meshes on it that are down at
// the moment.
func routesBeside(claims []Claim, within ...netip.Prefix) ([]osnet.Route, error) {
	routes, err := osnet.Routes(within...)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		for _, p := range c.Prefixes {
			if !slices.ContainsFunc(routes, func(r osnet.Route) bool { return r.Prefix == p }) {
				routes = append(routes, osnet.Route{Prefix: p, Interface: c.Interface + " (mesh " + c.Mesh + ")"})
			}
		}
	}
	return routes, nil
}

// fileDefault names the mesh that commands mean where there are several. It lies beside the state directories and may be read by all.
const fileDefault = ".default"

// Default returns the mesh that commands mean, "" when none was chosen. Whether it is there is not looked at.
func Default(root string) string {
	raw, err := os.ReadFile(filepath.Join(root, fileDefault))
	if name := strings.TrimSpace(string(raw)); err == nil && (ValidName(name) == nil || name == StaticMesh) {
		return name
	}
	return ""
}

// SetDefault chooses the mesh that commands mean; "" chooses none.
func SetDefault(root, mesh string) error {
	path := filepath.Join(root, fileDefault)
	if mesh == "" {
		return disk.Disk{}.Remove(path)
	}
	return disk.Disk{}.Write(path, []byte(mesh+"\n"), 0o644)
}
