package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"warren/config"
	"warren/mesh/node"
)

// loadConfig reads the config file of a mesh. That there is none is fine, unless it was asked for.
func (d *dirs) loadConfig(mesh string) (config.Config, error) {
	path, required := d.configPath(mesh)
	c, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return config.Parse(path, nil)
	}
	return c, err
}

// settings reads the config file of a mesh, and the keys it names, into what the node understands.
func (d *dirs) settings(mesh string) (node.Settings, error) {
	c, err := d.loadConfig(mesh)
	if err != nil {
		return node.Settings{}, err
	}
	s, err := settingsOf(c)
	if err != nil {
		return node.Settings{}, err
	}
	if mesh == staticMesh {
		path, _ := d.configPath(mesh)
		return s, checkStatic(path, c)
	}
	return s, nil
}

// anchorModes are the words of the config file, which has checked them.
var anchorModes = map[string]node.AnchorMode{"auto": node.AnchorAuto, "always": node.AnchorAlways, "never": node.AnchorNever}

func settingsOf(c config.Config) (node.Settings, error) {
	s := node.Settings{
		Interface:  node.Interface{Name: c.Interface.Name, Port: c.Interface.Port, MTU: c.Interface.MTU, Addresses: c.Interface.Addresses},
		Anchor:     anchorModes[c.Mesh.Anchor],
		Endpoints:  c.Mesh.Endpoints,
		IPv4:       c.Mesh.IPv4,
		NoIncoming: !c.Mesh.Incoming,
		NoLAN:      !c.Mesh.LAN,

		StreamPorts: c.Mesh.StreamPorts,
		RelayLimit:  c.Mesh.RelayLimit,
		Names:       c.Mesh.Names,
	}
	if c.Interface.PrivateKeyFile != "" {
		key, err := config.ReadKey(c.Interface.PrivateKeyFile)
		if err != nil {
			return node.Settings{}, err
		}
		s.Interface.PrivateKey = key
	}
	for _, p := range c.Peers {
		peer := node.StaticPeer{Name: p.Name, PublicKey: p.PublicKey, AllowedIPs: p.AllowedIPs, Endpoint: p.Endpoint,
			Keepalive: p.Keepalive, Share: p.Share}
		if p.PresharedKeyFile != "" {
			key, err := config.ReadKey(p.PresharedKeyFile)
			if err != nil {
				return node.Settings{}, fmt.Errorf("peer %s: %w", p.Name, err)
			}
			peer.PresharedKey = key
		}
		s.Static = append(s.Static, peer)
	}
	return s, nil
}

// checkStatic says what an agent without a mesh lacks: there it is the file that has to give key and address.
func checkStatic(path string, c config.Config) error {
	switch {
	case len(c.Peers) == 0:
		return hinted(fmt.Errorf("%s: no [[peer]], and no mesh on this machine: nothing to run", path),
			"make a mesh with: sudo warren create NAME, or join one with: sudo warren join")
	case c.Interface.PrivateKeyFile == "":
		return hinted(fmt.Errorf("%s: without a mesh, [interface] needs private_key_file", path),
			"make one with: wg genkey | sudo install -m 600 /dev/stdin "+filepath.Join(filepath.Dir(path), "private.key"))
	case len(c.Interface.Addresses) == 0:
		return hinted(fmt.Errorf("%s: without a mesh, [interface] needs addresses", path), `like: addresses = ["100.70.0.1/24"]`)
	}
	return nil
}
