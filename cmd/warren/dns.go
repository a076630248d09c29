package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/zone"
)

// queryTime bounds one question: the agent answers at once, a resolver that asks elsewhere may not.
const queryTime = 3 * time.Second

// resolverWords are how this machine's resolver may know the mesh's names.
var resolverWords = map[string]string{
	"resolved": "systemd-resolved asks this agent", "resolver": "macOS asks this agent", "hosts": "they stand in /etc/hosts", "": "this machine does not know them",
}

// shownNames says in a line how names are known on this machine.
func shownNames(s api.Status) string {
	text := "NAME." + s.Mesh.Domain + ": " + resolverWords[s.Names.Using]
	if s.Names.Using == "" {
		text += " (" + s.Names.Why + ")"
	}
	return text
}

// asks is how a question leaves this process.
type asks struct {
	exchange func(ctx context.Context, q *dns.Msg, at netip.AddrPort) (*dns.Msg, error)
	hosts    func(ctx context.Context, name string) (addrs []string, err error) // of this machine's resolver
	addrs    func(ctx context.Context, addr string) (names []string, err error)
}

func usualAsks() asks {
	client := dns.Client{Timeout: queryTime}
	return asks{
		exchange: func(ctx context.Context, q *dns.Msg, at netip.AddrPort) (*dns.Msg, error) {
			reply, _, err := client.ExchangeContext(ctx, q, at.String())
			return reply, err
		},
		hosts: net.DefaultResolver.LookupHost, addrs: net.DefaultResolver.LookupAddr,
	}
}

// dnsCommand tells of the mesh's names, and asks for one.
type dnsCommand struct {
	dirs *dirs
	con  *console
	asks asks
}

func (c dnsCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Tell how this machine knows the names of the mesh",
		Long: "Tell under which domain members have names, where this node answers for them, and how the resolver of this machine\n" +
			"learns of them. Nothing else of its resolving is changed. The names setting of the config file chooses another way.",
		Example: "  warren dns\n  warren dns query nas",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return c.con.printJSON(struct {
					Schema int        `json:"schema"`
					Domain string     `json:"domain"`
					Names  *api.Names `json:"names"`
				}{api.Schema, status.Mesh.Domain, status.Names})
			}
			c.tell(status)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(c.query())
	return cmd
}

// status is the agent's, of a mesh with names.
func (c dnsCommand) status(ctx context.Context) (api.Status, error) {
	status, err := c.dirs.status(ctx)
	switch {
	case err != nil:
		return api.Status{}, err
	case status.Mesh == nil:
		return api.Status{}, hinted(errors.New("there are names in a mesh only, and this agent runs static peers"), "warren create NAME, or warren join TOKEN")
	case status.Names == nil:
		return api.Status{}, hinted(errors.New("the agent is of a version that knows no names"), "sudo warren restart")
	}
	return status, nil
}

func (c dnsCommand) tell(s api.Status) {
	var f facts
	f.add("domain", s.Mesh.Domain)
	f.add("this machine", resolverWords[s.Names.Using])
	f.add("why", s.Names.Why)
	f.add("answered on", joinAddrs(s.Names.Served))
	for _, text := range s.Names.Trouble {
		f.add("not answered", text)
	}
	f.print(c.con.out, screenOf(c.con.out).listed())
}

func (c dnsCommand) query() *cobra.Command {
	var asJSON bool
	var kind string
	cmd := &cobra.Command{
		Use:   "query NAME|ADDRESS",
		Short: "Show what the agent answers for a name, and whether this machine hears the same",
		Example: "  warren dns query nas\n" +
			"  warren dns query 100.71.0.2",
		Args:              exactly(1, "NAME|ADDRESS"),
		ValidArgsFunction: completeParties(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := c.asks.ask(cmd.Context(), status, args[0], kind)
			if err != nil {
				return err
			}
			if asJSON {
				return c.con.printJSON(answer)
			}
			return c.show(status, answer)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&kind, "type", "", "record type: A, AAAA, PTR … (default: addresses of a name, the name of an address)")
	return cmd
}

// dnsAnswer is what `dns query` prints.
type dnsAnswer struct {
	Schema  int      `json:"schema"`
	Name    string   `json:"name"`    // that was asked for, in full
	Code    string   `json:"code"`    // of the answer: NOERROR, NXDOMAIN, REFUSED …
	Records []string `json:"records"` // "A 100.71.0.2"
	System  []string `json:"system"`  // what this machine's resolver says of the name: addresses, or names of an address
	Heard   bool     `json:"heard"`   // it says all that the agent says
}

// ask asks the agent, as any program would, and this machine's resolver.
func (by asks) ask(ctx context.Context, s api.Status, text, kind string) (dnsAnswer, error) {
	out := dnsAnswer{Schema: api.Schema, Records: []string{}, System: []string{}}
	if len(s.Names.Served) == 0 {
		why := "the interface is not up yet"
		if len(s.Names.Trouble) > 0 {
			why = s.Names.Trouble[0]
		}
		return out, fmt.Errorf("the agent answers nowhere: %s", why)
	}
	kinds, said := []string{"A", "AAAA"}, func() ([]string, error) { return by.hosts(ctx, out.Name) }
	if addr, err := netip.ParseAddr(text); err == nil {
		out.Name, kinds = zone.ReverseName(addr.Unmap()), []string{"PTR"}
		said = func() ([]string, error) { return by.addrs(ctx, addr.String()) }
	} else if out.Name = strings.TrimSuffix(text, "."); !strings.Contains(out.Name, ".") {
		out.Name += "." + s.Mesh.Domain
	}
	if kind != "" {
		kinds = []string{strings.ToUpper(kind)}
	}
	var wanted []string
	for _, k := range kinds {
		number, known := dns.StringToType[k]
		if !known {
			return out, &usageError{message: fmt.Sprintf("--type %q: want a record type, like A, AAAA, PTR, SOA", kind)}
		}
		var q dns.Msg
		q.SetQuestion(dns.Fqdn(out.Name), number)
		reply, err := by.exchange(ctx, &q, netip.AddrPortFrom(s.Names.Served[0], 53))
		if err != nil {
			return out, fmt.Errorf("ask the agent: %w", err)
		}
		out.Code = dns.RcodeToString[reply.Rcode]
		for _, rr := range reply.Answer {
			value := strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String()))
			out.Records = append(out.Records, dns.TypeToString[rr.Header().Rrtype]+" "+value)
			switch rr.(type) {
			case *dns.A, *dns.AAAA, *dns.PTR:
				wanted = append(wanted, value)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	system, _ := said() // that it knows nothing is an answer
	out.System = append(out.System, system...)
	out.Heard = !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(system, w) })
	return out, nil
}

func (c dnsCommand) show(s api.Status, a dnsAnswer) error {
	for _, r := range a.Records {
		fmt.Fprintln(c.con.out, a.Name, r)
	}
	switch {
	case a.Code == "NXDOMAIN":
		return hinted(fmt.Errorf("nobody is called %s", a.Name), "see: warren peers")
	case a.Code != "NOERROR":
		return fmt.Errorf("the agent does not answer for %s: %s; it knows names below %s and addresses of the mesh", a.Name, a.Code, s.Mesh.Domain)
	case len(a.Records) == 0:
		fmt.Fprintf(c.con.out, "%s has nothing of this type\n", a.Name)
	case !a.Heard:
		heard := "nothing"
		if len(a.System) > 0 {
			heard = strings.Join(a.System, ", ")
		}
		fmt.Fprintf(c.con.out, "this machine's resolver says %s: %s\n", heard, s.Names.Why)
	}
	return nil
}

// renameCommand gives this node another name.
type renameCommand struct {
	dirs *dirs
	con  *console
}

func (c renameCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rename NAME",
		Short: "Give this node another name",
		Long: "Give this node another name in its mesh. An admin's agent grants it within seconds, with a number behind it when another\n" +
			"member is called so already; until then the old one stands.",
		Example: "  sudo warren rename attic",
		Args:    exactly(1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			if err := agent.Rename(cmd.Context(), api.RenameRequest{Name: args[0]}); err != nil {
				return err
			}
			fmt.Fprintf(c.con.out, "this node wants to be called %s; see: warren status\n", args[0])
			return c.con.done(renamed{api.Schema, args[0]})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// renamed is what rename prints.
type renamed struct {
	Schema int    `json:"schema"`
	Wanted string `json:"wanted"` // the name; which is granted, status tells
}
