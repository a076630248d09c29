package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/config"
	"warren/mesh/api"
)

// deviceCommand hosts plain WireGuard devices: phones, routers, whatever runs no warren.
type deviceCommand struct {
	dirs *dirs
	con  *console
}

func (c deviceCommand) cobra() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Let phones and other plain WireGuard devices in, through this machine",
		Long: "A device that runs WireGuard's own app reaches the mesh through this machine, which hosts it. It has a name and addresses\n" +
			"as members have. It is up as long as this machine is.",
		Example: "  sudo warren device add phone\n  warren device list",
		Args:    subcommandOnly,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(changes(completing(c.add(), nothing)), c.list(), c.show(), destroys(c.remove()))
	return cmd
}

// deviceFlags are what add and show share.
type deviceFlags struct {
	endpoint     string
	noDNS, noQR  bool
	file         string
	asJSON, exit bool
}

func (f *deviceFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "HOST:PORT at which the device reaches this machine (default: where others do)")
	flags.BoolVar(&f.noDNS, "no-dns", false, "leave the device's DNS as it is: it knows no names of the mesh then")
	flags.BoolVar(&f.noQR, "no-qr", false, "print the configuration only")
	flags.BoolVar(&f.exit, "exit", false, "all traffic of the device goes through this machine (not there yet)")
	flags.StringVarP(&f.file, "output", "o", "", "write the configuration to this new file, readable by its owner alone")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
}

func (f *deviceFlags) check() error {
	if f.exit {
		return &usageError{message: "--exit: members are no exits yet; without it the device reaches the mesh, and the Internet as ever"}
	}
	if f.endpoint != "" {
		if err := config.CheckHostPort(f.endpoint); err != nil {
			return &usageError{message: fmt.Sprintf("--endpoint %q: %v", f.endpoint, err)}
		}
	}
	return nil
}

func (c deviceCommand) add() *cobra.Command {
	var flags deviceFlags
	var tags []string
	var public string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Let a device in: prints its WireGuard configuration, and a QR code for the phone's app",
		Long: "Let a device in. Its keys are made here and printed once: this machine keeps the public one. Hand the configuration over\n" +
			"like a password. With --public-key the device has made its key itself, and nothing secret but the preshared key is printed.",
		Example: "  sudo warren device add phone\n  sudo warren device add printer --tag lan -o printer.conf",
		Args:    exactly(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), agent, api.DeviceRequest{Name: args[0], PublicKey: public, Tags: tags, Endpoint: flags.endpoint}, flags)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringSliceVar(&tags, "tag", nil, "tag of the device; may be repeated")
	cmd.Flags().StringVar(&public, "public-key", "", "the device's own public key, in base64")
	return cmd
}

func (c deviceCommand) run(ctx context.Context, agent *api.Client, req api.DeviceRequest, flags deviceFlags) error {
	if c.con.stdout.nowhere() && flags.file == "" {
		return hinted(errors.New("standard output goes nowhere, and the configuration is shown there only: no device was added"), "let it go to a terminal, a file or a pipe")
	}
	private := ""
	if req.PublicKey == "" {
		key, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			return fmt.Errorf("make key: %w", err)
		}
		private, req.PublicKey = key.String(), key.PublicKey().String()
	}
	setup, err := agent.AddDevice(ctx, req)
	if err != nil {
		return err
	}
	// A device whose private key nobody has seen is of no use to anybody.
	if err := c.handOver(setup, private, flags); err != nil {
		return errors.Join(err, agent.RemoveDevice(ctx, api.DeviceName{Name: req.Name}))
	}
	return nil
}

// handOver prints the configuration.
func (c deviceCommand) handOver(setup api.DeviceSetup, private string, flags deviceFlags) error {
	if !setup.Public {
		fmt.Fprintf(c.con.err, "warning: strangers do not reach this machine, as far as is known; %s leads to it on its own network only\n", clean(setup.Endpoint))
		fmt.Fprintln(c.con.err, "hint: host the device on a member that is an anchor, or forward UDP here and say --endpoint HOST:PORT")
	}
	text := deviceConfig(setup, private, !flags.noDNS)
	switch {
	case flags.file != "":
		f, err := os.OpenFile(flags.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: no device was added; choose another file", flags.file)
		}
		if err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
		fmt.Fprintf(c.con.out, "%s is hosted here, %s; its configuration is in %s\n", setup.Name, joinAddrs(setup.Addresses), flags.file)
		return c.con.done(setup)
	case flags.asJSON:
		return c.con.printJSON(struct {
			api.DeviceSetup
			PrivateKey string `json:"private_key,omitempty"`
			Config     string `json:"config"`
		}{setup, private, text})
	}
	if _, err := fmt.Fprint(c.con.out, text); err != nil {
		return err
	}
	if flags.noQR || private == "" {
		return nil
	}
	fmt.Fprintln(c.con.out)
	return printQR(c.con.out, text)
}

// deviceConfig is what WireGuard's app, and wg-quick(8), read. Without a private key there is a line to fill in.
func deviceConfig(s api.DeviceSetup, private string, withDNS bool) string {
	var b strings.Builder
	if private == "" {
		private = "THE-PRIVATE-KEY-OF-THE-DEVICE"
	}
	var addrs, dns, allowed []string
	for _, a := range s.Addresses {
		addrs = append(addrs, netip.PrefixFrom(a, a.BitLen()).String())
	}
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\nAddress = %s\n", private, strings.Join(addrs, ", "))
	for _, a := range s.DNS {
		dns = append(dns, a.String())
	}
	if withDNS && len(dns) > 0 {
		fmt.Fprintf(&b, "DNS = %s, %s\n", strings.Join(dns, ", "), s.Domain)
	}
	for _, p := range s.AllowedIPs {
		allowed = append(allowed, p.String())
	}
	fmt.Fprintf(&b, "\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = %s\nEndpoint = %s\nPersistentKeepalive = 25\n",
		s.PublicKey, s.PresharedKey, strings.Join(allowed, ", "), s.Endpoint)
	return b.String()
}

func (c deviceCommand) show() *cobra.Command {
	var flags deviceFlags
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Print the configuration of a device that is hosted here, without its private key",
		Example: "  sudo warren device show phone",
		Args:    exactly(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			setup, err := agent.Device(cmd.Context(), api.DeviceName{Name: args[0], Endpoint: flags.endpoint})
			if err != nil {
				return err
			}
			return c.handOver(setup, "", flags)
		},
		ValidArgsFunction: c.names(),
	}
	flags.add(cmd)
	return cmd
}

func (c deviceCommand) list() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the devices that are hosted here",
		Example: "  warren device list",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			list, err := agent.Devices(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return c.con.printJSON(list)
			}
			if len(list.Devices) == 0 {
				fmt.Fprintln(c.con.out, "this machine hosts no devices; let one in with: sudo warren device add NAME")
				return nil
			}
			var t table
			t.add("NAME", "ADDRESSES", "TAGS", "HANDSHAKE")
			for _, d := range list.Devices {
				shook := "never"
				if d.LastHandshake != nil {
					shook = d.LastHandshake.Local().Format("2006-01-02 15:04:05")
				}
				t.add(d.Name, joinAddrs(d.Addresses), strings.Join(d.Tags, ", "), shook)
			}
			t.print(c.con.out, screenOf(c.con.out).listed(), false)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c deviceCommand) remove() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Cut a device off that is hosted here, and forget it",
		Example: "  sudo warren device remove phone",
		Args:    exactly(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			if err := agent.RemoveDevice(cmd.Context(), api.DeviceName{Name: args[0]}); err != nil {
				return err
			}
			fmt.Fprintf(c.con.out, "%s is hosted no more\n", args[0])
			return c.con.done(removed{api.Schema, args[0]})
		},
		ValidArgsFunction: c.names(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// removed is what device remove prints.
type removed struct {
	Schema int    `json:"schema"`
	Name   string `json:"name"`
}

// names completes those of devices.
func (c deviceCommand) names() cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (found []string, _ cobra.ShellCompDirective) {
		_, agent, err := c.dirs.agent()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := agent.Devices(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, d := range list.Devices {
			found = append(found, clean(d.Name))
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}
