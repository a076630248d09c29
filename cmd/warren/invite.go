package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"warren/mesh/api"
	"warren/mesh/place"
)

// inviteCommand makes and lists invites.
type inviteCommand struct {
	dirs *dirs
	con  *console
	now  func() time.Time
}

func (c inviteCommand) cobra() *cobra.Command {
	var uses int
	var expires string
	var admin, showQR, asJSON bool
	var tags []string
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a token that lets another machine in",
		Long: "Make a token that lets another machine in. The token alone goes to standard output. Whoever holds it can join, as\n" +
			"often as --uses says, until it expires: hand it over like a password.",
		Example: "  sudo warren invite\n" +
			"  sudo warren invite --uses 10 --expires 7d --tag lab\n" +
			"  sudo warren invite --qr",
		Args: subcommandOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			life, err := parseLife(expires)
			if err != nil {
				return &usageError{message: fmt.Sprintf("--expires %q: %v", expires, err)}
			}
			_, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			req := api.InviteRequest{Uses: uses, ValidForMS: life.Milliseconds(), Admin: admin, Tags: tags}
			return c.run(cmd.Context(), agent, req, showQR, asJSON)
		},
	}
	cmd.Flags().IntVar(&uses, "uses", 1, "how many machines may join with it")
	cmd.Flags().StringVar(&expires, "expires", "24h", "life of the token, like 30m, 24h or 7d")
	cmd.Flags().BoolVar(&admin, "admin", false, "who joins with it may invite and revoke")
	cmd.Flags().StringSliceVar(&tags, "tag", nil, "tag of who joins with it; may be repeated")
	cmd.Flags().BoolVar(&showQR, "qr", false, "also show the token as a QR code")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(c.list())
	return cmd
}

func (c inviteCommand) run(ctx context.Context, agent *api.Client, req api.InviteRequest, showQR, asJSON bool) error {
	if c.con.stdout.nowhere() {
		return hinted(errors.New("standard output goes nowhere, and the token is shown there only: no invite was made"), "let it go to a terminal, a file or a pipe")
	}
	invite, err := agent.Invite(ctx, req)
	if err != nil {
		return err
	}
	if asJSON {
		return c.handedOver(ctx, agent, invite, c.con.printJSON(invite))
	}
	fmt.Fprintf(c.con.err, "for %s, until %s; on the other machine say: sudo warren join\n",
		plural(invite.Uses, "machine", "machines"), invite.Expires.Local().Format("2006-01-02 15:04"))
	fmt.Fprintf(c.con.err, "to withdraw it: sudo warren revoke --invite %s\n", short(invite.ID))
	if warning, hint := tokenReach(invite, c.port(ctx, agent)); warning != "" {
		fmt.Fprintln(c.con.err, "warning: "+clean(warning))
		fmt.Fprintln(c.con.err, "hint: "+clean(hint))
	}
	if _, err := fmt.Fprintln(c.con.out, clean(invite.Token)); err != nil {
		return c.handedOver(ctx, agent, invite, err)
	}
	if showQR {
		return printQR(c.con.out, invite.Token)
	}
	return nil
}

// handedOver sees to a token that could not be written. It is secret, and shown once: a person at a terminal is shown it there, else
// the invite is withdrawn, since nobody can use it any more.
func (c inviteCommand) handedOver(ctx context.Context, agent *api.Client, invite api.Invite, err error) error {
	if err == nil {
		return nil
	}
	if c.con.terminal {
		fmt.Fprintln(c.con.err, clean(invite.Token))
		return hinted(err, "the token is shown above instead; to withdraw it: sudo warren revoke --invite "+short(invite.ID))
	}
	act := api.Act{Kind: api.ActRevoke, Invite: invite.ID}
	found, failed := agent.Consequences(ctx, act)
	if failed == nil {
		failed = agent.Commit(ctx, api.Commit{Act: act, Shown: found.Shown, Keep: true, KeepRevoked: true}, func(api.Confirmation) {})
	}
	if failed != nil {
		return hinted(err, "nobody has the token now; end its invite with: sudo warren revoke --invite "+short(invite.ID))
	}
	return hinted(err, "nobody has the token now, so its invite is withdrawn; say it again where there is room")
}

// port is that of the agent's socket; the usual one where it does not say.
func (c inviteCommand) port(ctx context.Context, agent *api.Client) uint16 {
	status, err := agent.Status(ctx)
	if err != nil || status.Self.Port == 0 {
		return place.DefaultPort
	}
	return status.Self.Port
}

func (c inviteCommand) list() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the invites that can still be used, or were used too often",
		Example: "  warren invite list",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := c.dirs.status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return c.con.printJSON(struct {
					Schema  int           `json:"schema"`
					Invites []api.Invited `json:"invites"`
				}{api.Schema, status.Invites})
			}
			var t table
			t.add("ID", "USED", "EXPIRES", "ROLE", "TAGS", "BY")
			for _, i := range status.Invites {
				expires, role := "never", "member"
				if i.Expires != nil {
					expires = "in " + span(i.Expires.Sub(c.now()))
				}
				if i.Admin {
					role = "admin"
				}
				t.add(short(i.ID), fmt.Sprintf("%d of %d", i.Used, i.Uses), expires, role, strings.Join(i.Tags, ","), i.By)
			}
			t.print(c.con.out, screenOf(c.con.out).listed(), true)
			for _, i := range status.Invites {
				if i.Used > i.Uses {
					c.con.remark("invite %s let in %s, and allows %d: members that could not hear of each other admitted at once, or somebody cheats; "+
						"see who came by it with: sudo warren revoke --invite %s --dry-run; and throw out whom you do not know", short(i.ID), plural(i.Used, "machine", "machines"), i.Uses, short(i.ID))
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// parseLife reads a duration that may also be in days.
func parseLife(text string) (time.Duration, error) {
	errLife := errors.New("want a time like 30m, 24h or 7d, of ten years at most")
	life, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		life = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || life < time.Millisecond || life > api.MaxInviteLife {
		return 0, errLife
	}
	return life, nil
}

// printQR draws a QR code with two rows of modules in each line of text, dark on light, inside the quiet zone of four
// modules that readers need (ISO/IEC 18004).
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("draw QR code: %w", err)
	}
	const quiet = 4
	for y := -quiet; y < code.Size+quiet; y += 2 {
		// Black on white whatever the colours of the terminal are (ECMA-48, SGR).
		line := "\x1b[30;107m"
		for x := -quiet; x < code.Size+quiet; x++ {
			line += [4]string{" ", "▀", "▄", "█"}[module(code, x, y)+2*module(code, x, y+1)]
		}
		fmt.Fprintln(w, line+"\x1b[0m")
	}
	return nil
}

func module(code *qr.Code, x, y int) int {
	if code.Black(x, y) {
		return 1
	}
	return 0
}
