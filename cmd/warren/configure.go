package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"warren/config"
	"warren/mesh/api"
	"warren/mesh/place"
)

// configCommand checks and shows config files.
type configCommand struct {
	dirs *dirs
	con  *console
}

func (c configCommand) cobra() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check and show the config file",
		Example: "  warren config check\n  warren config show",
		Args:    subcommandOnly,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	show := &cobra.Command{
		Use: "show", Short: "Print the settings that hold, defaults included", Example: "  warren config show --mesh home",
		Args: exactly(0, ""),
		RunE: func(*cobra.Command, []string) error { return c.show(asJSON) },
	}
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(show, &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a config file without using it",
		Long: "Check a config file, and the key files it names, without using it. All mistakes are listed as\n" +
			"FILE:LINE:COLUMN: what is wrong. Routes are checked against the networks that this machine is on now.",
		Example:           "  warren config check\n  warren config check ./warren.toml",
		Args:              between(0, 1, "[FILE]"),
		ValidArgsFunction: files,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.dirs.config = args[0]
			}
			return c.check()
		},
	})
	return cmd
}

// mesh is the mesh whose file is meant; the common file when there is none or several.
func (c configCommand) mesh() string {
	mesh, err := c.dirs.pick()
	if err != nil {
		return ""
	}
	return mesh
}

func (c configCommand) check() error {
	path, required := c.dirs.configPath(c.mesh())
	file, places, err := config.LoadAt(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !required:
		fmt.Fprintf(c.con.out, "%s is not there: all settings have their defaults\n", path)
		return nil
	case err != nil:
		return err
	}
	if _, err := settingsOf(file); err != nil {
		return err
	}
	if err := c.cannotStart(path, file); err != nil {
		return err
	}
	if left := c.swallowing(c.mesh(), file, places); len(left) > 0 {
		return left
	}
	fmt.Fprintf(c.con.out, "%s is fine: %s\n", path, plural(len(file.Peers), "static peer", "static peers"))
	return nil
}

// shownConfig is the output of `config show --json`. Keys stay in their files.
type shownConfig struct {
	Schema    int            `json:"schema"`
	File      string         `json:"file"`
	Interface shownInterface `json:"interface"`
	Mesh      shownMesh      `json:"mesh"`
	Peers     []shownPeer    `json:"peers"`
}

type shownInterface struct {
	Name           string         `json:"name"`
	Port           uint16         `json:"port"`
	MTU            int            `json:"mtu"`
	PrivateKeyFile string         `json:"private_key_file"`
	Addresses      []netip.Prefix `json:"addresses"`
}

type shownMesh struct {
	Anchor   string   `json:"anchor"`
	Endpoint []string `json:"endpoint"`
	Incoming bool     `json:"incoming"`
	IPv4     *bool    `json:"ipv4"` // null: as chosen at create or join
	LAN      bool     `json:"lan"`
	Ports    []uint16 `json:"stream_ports"`
}

type shownPeer struct {
	Name                string         `json:"name"`
	PublicKey           string         `json:"public_key"`
	AllowedIPs          []netip.Prefix `json:"allowed_ips"`
	Endpoint            string         `json:"endpoint"`
	PresharedKeyFile    string         `json:"preshared_key_file"`
	PersistentKeepalive string         `json:"persistent_keepalive"`
	Share               bool           `json:"share"`
}

func shown(path string, c config.Config) shownConfig {
	s := shownConfig{
		Schema: api.Schema, File: path,
		Interface: shownInterface{c.Interface.Name, c.Interface.Port, c.Interface.MTU, c.Interface.PrivateKeyFile,
			append([]netip.Prefix{}, c.Interface.Addresses...)},
		Mesh:  shownMesh{c.Mesh.Anchor, append([]string{}, c.Mesh.Endpoints...), c.Mesh.Incoming, c.Mesh.IPv4, c.Mesh.LAN, append([]uint16{}, c.Mesh.StreamPorts...)},
		Peers: []shownPeer{},
	}
	for _, p := range c.Peers {
		keepalive := ""
		if p.Keepalive > 0 {
			keepalive = fmt.Sprintf("%.0fs", p.Keepalive.Seconds())
		}
		s.Peers = append(s.Peers, shownPeer{p.Name, config.KeyText(p.PublicKey), append([]netip.Prefix{}, p.AllowedIPs...), p.Endpoint,
			p.PresharedKeyFile, keepalive, p.Share})
	}
	return s
}

func (c configCommand) show(asJSON bool) error {
	path, _ := c.dirs.configPath(c.mesh())
	file, err := c.dirs.loadConfig(c.mesh())
	if err != nil {
		return err
	}
	s := shown(path, file)
	if asJSON {
		return c.con.printJSON(s)
	}
	var text tomlText
	text.line("# %s", path)
	text.line("[interface]")
	kept := c.kept()
	text.setting("name", fmt.Sprintf("%q", s.Interface.Name), s.Interface.Name != "", kept.name)
	text.setting("port", fmt.Sprint(s.Interface.Port), s.Interface.Port != 0, kept.port)
	text.setting("mtu", fmt.Sprint(s.Interface.MTU), s.Interface.MTU != 0, "what fits every path")
	text.setting("private_key_file", fmt.Sprintf("%q", s.Interface.PrivateKeyFile), s.Interface.PrivateKeyFile != "", "the key in the state directory")
	text.setting("addresses", quoted(s.Interface.Addresses), len(s.Interface.Addresses) > 0, "those of the mesh")
	text.line("\n[mesh]")
	text.line("anchor = %q", s.Mesh.Anchor)
	text.setting("endpoint", quoted(s.Mesh.Endpoint), len(s.Mesh.Endpoint) > 0, "found out by asking others")
	ipv4 := s.Mesh.IPv4 != nil && *s.Mesh.IPv4
	text.setting("ipv4", fmt.Sprint(ipv4), s.Mesh.IPv4 != nil, "as chosen at create or join")
	text.line("incoming = %t", s.Mesh.Incoming)
	text.line("lan = %t", s.Mesh.LAN)
	ports := strings.ReplaceAll(fmt.Sprint(s.Mesh.Ports), " ", ", ")
	text.setting("stream_ports", ports, len(s.Mesh.Ports) > 0, "none beside the number of the UDP port")
	for _, p := range s.Peers {
		text.line("\n[[peer]]")
		text.line("name = %q", p.Name)
		text.line("public_key = %q", p.PublicKey)
		text.line("allowed_ips = %s", quoted(p.AllowedIPs))
		text.setting("endpoint", fmt.Sprintf("%q", p.Endpoint), p.Endpoint != "", "the peer calls us")
		text.setting("preshared_key_file", fmt.Sprintf("%q", p.PresharedKeyFile), p.PresharedKeyFile != "", "none")
		text.setting("persistent_keepalive", fmt.Sprintf("%q", p.PersistentKeepalive), p.PersistentKeepalive != "", "off")
		text.line("share = %t", p.Share)
	}
	fmt.Fprint(c.con.out, text.String())
	return nil
}

// keptWords say which interface and port hold without a file.
type keptWords struct{ name, port string }

func (c configCommand) kept() keptWords {
	mesh := c.mesh()
	for _, claim := range place.Claims(c.dirs.stateRoot) {
		if claim.Mesh == mesh && claim.Interface != "" {
			return keptWords{claim.Interface + ", chosen at create or join", fmt.Sprintf("%d, chosen at create or join", claim.Port)}
		}
	}
	return keptWords{"chosen at create or join, the first free one", fmt.Sprintf("chosen at create or join, the first free one from %d on", place.DefaultPort)}
}

// tomlText builds a file that would be read back as the same settings.
type tomlText struct{ strings.Builder }

func (t *tomlText) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// setting writes a line; one that was not given stands as a comment that tells the default.
func (t *tomlText) setting(key, value string, given bool, otherwise string) {
	if given {
		t.line("%s = %s", key, value)
	} else {
		t.line("# %s: %s", key, otherwise)
	}
}

func quoted[T any](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = fmt.Sprintf("%q", fmt.Sprint(item))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}
