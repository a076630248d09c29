package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"warren/config"
	"warren/mesh/identity"
	"warren/mesh/place"
)

// nodeFlags are the flags that create and join share.
type nodeFlags struct {
	name      string
	endpoints []string
	port      uint16
	noStart   bool
	asJSON    bool
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "name of this node (default: the host name)")
	flags.StringSliceVar(&f.endpoints, "endpoint", nil, "HOST:PORT at which others reach this machine, if you know it; may be repeated")
	flags.Uint16Var(&f.port, "port", 0, fmt.Sprintf("UDP port (default %d, or the next free one)", place.DefaultPort))
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.BoolVar(&f.noStart, "no-start", false, "do not install and start the service")
}

func (f *nodeFlags) check() error {
	if f.name == "" {
		f.name = hostName()
	}
	if err := place.ValidName(f.name); err != nil {
		return &usageError{message: "--name: " + err.Error()}
	}
	for _, endpoint := range f.endpoints {
		if err := config.CheckHostPort(endpoint); err != nil {
			return &usageError{message: fmt.Sprintf("--endpoint %q: %v", endpoint, err)}
		}
	}
	return nil
}

// createCommand makes a mesh.
type createCommand struct {
	dirs   *dirs
	con    *console
	start  *starter
	create func(place.CreateOptions) (place.Membership, error)
}

func (c createCommand) cobra() *cobra.Command {
	var flags nodeFlags
	var ipv4, domain string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a new mesh with this machine as its founder",
		Long: "Make a new mesh with this machine as its founder, and start its agent.\n\n" +
			"The founder is the first admin. Above all admins stands the root key of the mesh, which stays in the state directory:\n" +
			"nothing needs it from day to day, but it alone makes an admin when none is left, and undoes what a stolen admin key\n" +
			"did. Put a copy in a safe place, with: sudo warren admin export-root. The mesh works on without this machine.",
		Example: "  sudo warren create home\n" +
			"  sudo warren create home --endpoint vpn.example.org:9277 --name gate",
		Args: exactly(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := c.options(args[0], ipv4, &flags)
			if err != nil {
				return err
			}
			if domain != "" {
				if err := identity.CheckDomain(domain); err != nil {
					return &usageError{message: "--domain: " + err.Error()}
				}
				options.Domain = domain
			}
			return c.run(cmd.Context(), options, flags.noStart)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&ipv4, "ipv4", "auto", "IPv4 prefix of the mesh as CIDR, auto or none")
	cmd.Flags().StringVar(&domain, "domain", "", "domain under which members have names (default: NAME.internal)")
	return cmd
}

// options are what the flags say.
func (c createCommand) options(mesh, ipv4 string, flags *nodeFlags) (place.CreateOptions, error) {
	if err := place.ValidName(mesh); err != nil {
		return place.CreateOptions{}, &usageError{message: "mesh: " + err.Error()}
	}
	if mesh == staticMesh {
		return place.CreateOptions{}, &usageError{message: fmt.Sprintf("mesh: the name %q is taken by the agent without a mesh", mesh)}
	}
	if c.dirs.mesh != "" && c.dirs.mesh != mesh {
		return place.CreateOptions{}, &usageError{message: fmt.Sprintf("two names: %q and --mesh %q", mesh, c.dirs.mesh)}
	}
	if err := flags.check(); err != nil {
		return place.CreateOptions{}, err
	}
	options := place.CreateOptions{
		Mesh: mesh, StateRoot: c.dirs.stateRoot, Name: flags.name, Endpoints: flags.endpoints, Port: flags.port, Claims: c.dirs.claims(),
	}
	switch ipv4 {
	case "auto":
	case "none":
		options.NoIPv4 = true
	default:
		prefix, err := netip.ParsePrefix(ipv4)
		if err != nil {
			return place.CreateOptions{}, &usageError{message: fmt.Sprintf("--ipv4 %q: want an IPv4 prefix, auto or none", ipv4), hint: "like: --ipv4 10.77.0.0/16"}
		}
		if err := identity.CheckPrefix4(prefix); err != nil {
			return place.CreateOptions{}, &usageError{message: "--ipv4: " + err.Error(), hint: "like: --ipv4 10.77.0.0/16"}
		}
		options.IPv4 = prefix
	}
	return options, nil
}

func (c createCommand) run(ctx context.Context, options place.CreateOptions, noStart bool) error {
	before, _ := c.dirs.present()
	made, err := c.create(options)
	if errors.Is(err, fs.ErrExist) {
		return hinted(fmt.Errorf("mesh %s is here already", options.Mesh), "see: warren status --mesh "+options.Mesh)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.con.out, "created mesh %s; this node is %s, %s\n", made.Mesh, made.Name, addressList(made))
	c.con.beside(made)
	c.dirs.keepMeaning(c.con, before, made.Mesh)
	flag := c.dirs.meshFlag(made.Mesh)
	fmt.Fprintf(c.con.out, "this machine holds the root key of the mesh, the only way back if all admins are lost or one is stolen;\n"+
		"put a copy where neither fire nor thieves get at it: sudo warren admin export-root FILE%s\n", flag)
	err = c.start.after(ctx, c.con, made.Mesh, noStart)
	if err == nil {
		fmt.Fprintf(c.con.out, "invite another machine with: sudo warren invite%s\n", flag)
	}
	return errors.Join(err, c.con.placed(made, c.start.started))
}

// beside says what a mesh has that is not as usual, since others have that.
func (c *console) beside(m place.Membership) {
	if m.Port != 0 && m.Port != place.DefaultPort {
		on := ""
		if m.Interface != "" {
			on = ", and the interface " + m.Interface
		}
		fmt.Fprintf(c.out, "it uses UDP port %d%s\n", m.Port, on)
	}
}

func addressList(m place.Membership) string {
	var list []string
	for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
		if addr.IsValid() {
			list = append(list, addr.String())
		}
	}
	return strings.Join(list, " and ")
}
