package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/record"
	"warren/mesh/report"
)

// powerFlags are those of the commands by which an admin does something to others.
type powerFlags struct {
	root    bool   // with the root key in the state directory
	rootKey string // file of the root key; "": none
	keep    bool
	cascade bool
	undo    bool
	yes     bool
	dryRun  bool
	asJSON  bool
	wait    bool
	reason  string
}

// addRoot adds the flags that say who signs, and how it is reported.
func (f *powerFlags) addRoot(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.rootKey, "root-key", "", "sign with the root key in this file (- for standard input), not as this node")
	flags.BoolVar(&f.root, "root", false, "sign with the root key that is kept on this machine, not as this node")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only show what would come of it")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON: with --dry-run what would come of it, else what has")
	flags.BoolVar(&f.wait, "wait", false, "wait until all members have confirmed")
	must(cmd.MarkFlagFilename("root-key"))
}

// addFate adds the flags that say what becomes of those who depend on who is hit.
func (f *powerFlags) addFate(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.keep, "keep-admitted", false, "whom it let in stays, and so does what it revoked")
	flags.BoolVar(&f.cascade, "cascade", false, "whom it let in goes too, and what it revoked as an admin is back")
	flags.BoolVar(&f.undo, "undo-revocations", false, "what it revoked as an admin is back, whoever else stays")
	flags.StringVar(&f.reason, "reason", "", "why, for the others to read")
}

// must is for what only a mistake in this program can make fail.
func must(err error) {
	if err != nil {
		panic("internal error: " + err.Error())
	}
}

func (f *powerFlags) check(command string) error {
	switch {
	case f.keep && f.cascade:
		return &usageError{message: command + ": --keep-admitted and --cascade: say one of them"}
	case f.root && f.rootKey != "":
		return &usageError{message: command + ": --root and --root-key: say one of them"}
	}
	return nil
}

// powerCommand shows what would come of an act, asks where somebody else is concerned, and has the agent do it. What it does is
// what it has shown: the agent refuses when that is not so any more.
type powerCommand struct {
	dirs    *dirs
	con     *console
	now     func() time.Time
	offline func(stateDir string) (offline, error)
}

// offline is the power of the root key where no agent runs.
type offline interface {
	api.Power
	io.Closer
}

func (c powerCommand) run(ctx context.Context, act api.Act, f *powerFlags) error {
	mesh, agent, err := c.dirs.agent()
	if err != nil {
		return err
	}
	var root identity.Authority
	if act.Root = f.root || f.rootKey != ""; act.Root && !f.dryRun {
		if root, err = c.rootKey(mesh, f); err != nil {
			return err
		}
	}
	var by api.Power = agent
	found, err := by.Consequences(ctx, act)
	if errors.Is(err, api.ErrNotRunning) && act.Root {
		here, openErr := c.offline(c.dirs.stateDir(mesh))
		if openErr != nil {
			return openErr
		}
		defer here.Close()
		fmt.Fprintln(c.con.err, "the agent is not running: what is said is kept here, and spreads when it runs again")
		by = here
		found, err = by.Consequences(ctx, act)
	}
	if err != nil {
		return err
	}
	if f.dryRun && f.asJSON {
		return c.con.printJSON(found)
	}
	c.show(found, f)
	if f.dryRun {
		return nil
	}
	req := api.Commit{Act: act, Shown: found.Shown, Reason: f.reason, Wait: f.wait}
	if req.Keep, err = c.decide(ctx, found, f); err != nil {
		return err
	}
	req.KeepRevoked = req.Keep && !f.undo
	if act.Root {
		if req.Signed, err = signAsRoot(found, req, root, c.now()); err != nil {
			return err
		}
	}
	return c.commit(ctx, by, found, req)
}

// rootKey reads the root key. Nothing of it is printed, and the agent is not given it.
func (c powerCommand) rootKey(mesh string, f *powerFlags) (identity.Authority, error) {
	dir := c.dirs.stateDir(mesh)
	if f.rootKey == "" {
		root, err := place.OwnRoot(dir)
		if errors.Is(err, place.ErrNoRootKey) {
			return root, hinted(err, "say where it is: --root-key FILE")
		}
		return root, err
	}
	raw, err := c.con.readKey(f.rootKey)
	if err != nil {
		return identity.Authority{}, err
	}
	root, err := place.RootOf(dir, raw)
	if err != nil {
		return root, fmt.Errorf("--root-key %s: %w", f.rootKey, err)
	}
	return root, nil
}

// readKey reads the file of a root key, or standard input for "-".
func (c *console) readKey(file string) ([]byte, error) {
	in := c.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read root key: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
			fmt.Fprintf(c.err, "warning: others may read %s: it holds the root key of the mesh; chmod 600\n", clean(file))
		}
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, place.MaxRootKey))
	if err != nil {
		return nil, fmt.Errorf("read root key: %w", err)
	}
	return raw, nil
}

// signAsRoot makes the records of an act. They are for what was shown.
func signAsRoot(found api.Consequences, req api.Commit, root identity.Authority, now time.Time) (out [][]byte, err error) {
	var records []record.Signed
	if found.Act.Kind == api.ActPromote {
		key := ed25519.PublicKey(found.Key)
		if len(key) != ed25519.PublicKeySize || identity.NodeIDOf(key).String() != found.Target.ID {
			return nil, fmt.Errorf("promote %s: the agent's answer is not about its key: %w", found.Target.Name, api.ErrProtocol)
		}
		cert, err := identity.NewPromotion(root, key, now)
		if err != nil {
			return nil, err
		}
		records = append(records, record.NewCertificate(cert))
	} else {
		orders, err := report.Orders(found, req, now)
		if err != nil {
			return nil, err
		}
		for _, order := range orders {
			signed, err := record.SignRevocation(identity.MeshIDOf(root.Key.Public().(ed25519.PublicKey)), order, root.Key)
			if err != nil {
				return nil, err
			}
			records = append(records, signed)
		}
	}
	for _, signed := range records {
		encoded, err := signed.Marshal()
		if err != nil {
			return nil, err
		}
		out = append(out, encoded)
	}
	return out, nil
}

// show prints who and what is hit.
func (c powerCommand) show(found api.Consequences, f *powerFlags) {
	name, others := found.Target.Name, "stays, or goes too:"
	if found.Act.Invite != "" {
		name = "it"
		c.say("%s: lets nobody in any more", described(found.Target))
	} else {
		c.say("%s: %s", described(found.Target), map[string]string{
			api.ActRevoke: "out for good", api.ActDemote: "no admin any more, for good; it stays a member", api.ActPromote: "an admin from now on",
		}[found.Act.Kind])
	}
	revocations := "stays revoked, or is back:"
	switch {
	case f.cascade:
		others, revocations = "goes too:", "is back then:"
	case f.keep || found.Act.Invite != "":
		others, revocations = "stays:", "stays revoked:"
	}
	if f.undo {
		revocations = "is back then:"
	}
	if len(found.Others) > 0 {
		c.say("who depends on %s, and %s", name, others)
		c.list(found.Others)
	}
	if len(found.Revocations) > 0 {
		c.say("what %s has revoked, and %s", name, revocations)
		for _, r := range found.Revocations {
			c.say("  %s", shownRevoked(r))
		}
	}
	if len(found.Demoted) > 0 {
		c.say("whom %s has promoted, and who is an admin no more:", name)
		c.list(found.Demoted)
	}
	for _, i := range found.Ends {
		c.say("ends as well: invite %s, %d of %d used", short(i.ID), i.Used, i.Uses)
	}
	if came := found.Came; came != nil {
		stay := ""
		if len(came.Stay) > 0 {
			stay = "; who came by it too stays:"
		}
		c.say("ends as well: invite %s, by which it came (--keep-invite leaves it)%s", short(came.ID), stay)
		c.list(came.Stay)
	}
	for _, remark := range found.Remarks {
		c.say("note: %s", remark)
	}
}

func (c powerCommand) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	fmt.Fprintln(c.con.out, indent+clean(text[len(indent):]))
}

func (c powerCommand) list(parties []api.Party) {
	for _, p := range parties {
		how := ""
		if p.How != "" {
			how = ": " + p.How
		}
		c.say("  %s%s", described(p), how)
	}
}

// described names a node so that no other can be taken for it: names can be made to look alike, IDs and addresses cannot.
func described(p api.Party) string {
	if p.Name == "" {
		return "invite " + short(p.ID)
	}
	text := p.Name + " (" + short(p.ID)
	if p.Address.IsValid() {
		text += ", " + p.Address.String()
	}
	text += ")"
	if p.Admin {
		text += ", admin"
	}
	if p.Left {
		text += ", has left"
	}
	if p.Out {
		text += ", out at present"
	}
	return text
}

func shownRevoked(r api.Revoked) string {
	text := r.Name
	if r.Kind == "invite" {
		text = "invite"
	}
	text += " (" + short(r.ID) + "), " + map[string]string{api.ScopePower: "demoted", api.ScopeWhole: "revoked"}[r.Scope] + " on " + r.Time.UTC().Format("2006-01-02 15:04 UTC")
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// decide says whether the others stay. Without a flag that says so a person is asked.
func (c powerCommand) decide(ctx context.Context, found api.Consequences, f *powerFlags) (keep bool, err error) {
	hit := len(found.Others)
	switch {
	case found.Act.Kind == api.ActPromote:
		return true, nil
	case found.Act.Invite != "":
		if !f.cascade || hit == 0 || f.yes {
			return !f.cascade, nil
		}
		return false, c.confirm(ctx, found)
	case f.keep || f.cascade:
		return !f.cascade, nil
	case hit+len(found.Revocations) == 0:
		return true, nil
	case c.con.ask == nil:
		return false, hinted(fmt.Errorf("%s %s: say what becomes of %s", found.Act.Kind, found.Target.Name, concerned(found)),
			"--keep-admitted: all stays as it is; --cascade: all that goes with it; --dry-run only shows it")
	}
	answer, err := c.con.ask(ctx, "keep them as they are, or let them go with it? keep, go, or nothing to stop here: ")
	switch {
	case err != nil:
		return false, err
	case answer == "keep":
		return true, nil
	case answer == "go":
		return false, nil
	}
	return false, errStopped
}

var errStopped = errors.New("nothing was done")

// confirm asks whether those who came by an invite really go.
func (c powerCommand) confirm(ctx context.Context, found api.Consequences) error {
	if c.con.ask == nil {
		return hinted(fmt.Errorf("revoke invite %s with --cascade: this puts out %s", short(found.Act.Invite), concerned(found)), "say --yes if they are to go; without --cascade they stay")
	}
	answer, err := c.con.ask(ctx, fmt.Sprintf("let %s go? yes, or nothing to stop here: ", plural(len(found.Others), "member", "members")))
	if err == nil && answer != "yes" {
		err = errStopped
	}
	return err
}

// maxConcerned is how many are named in one line.
const maxConcerned = 5

// concerned lists who or what else is at stake, in one line.
func concerned(found api.Consequences) string {
	var names []string
	for _, p := range found.Others {
		names = append(names, described(p))
	}
	for _, r := range found.Revocations {
		names = append(names, "its revocation of "+shownRevoked(r))
	}
	if more := len(names) - maxConcerned; more > 0 {
		names = append(names[:maxConcerned], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, "; ")
}

// committed is what the commands of power print with --json.
type committed struct {
	Schema      int           `json:"schema"`
	Act         api.Act       `json:"act"`
	Target      api.Party     `json:"target"`
	Others      []api.Party   `json:"others"` // who depends on it
	Kept        bool          `json:"kept"`   // they stay
	Revocations []api.Revoked `json:"revocations"`
	KeptRevoked bool          `json:"kept_revoked"` // they stay in force
	Confirmed   []string      `json:"confirmed"`    // with --wait: who has, by name
	Waiting     int           `json:"waiting"`      // members that have not confirmed yet, as far as was waited
}

// commit has it done.
func (c powerCommand) commit(ctx context.Context, by api.Power, found api.Consequences, req api.Commit) error {
	done, waiting, confirmed := false, 0, []string{}
	err := by.Commit(ctx, req, func(news api.Confirmation) {
		waiting = news.Waiting
		if !done {
			done = true
			c.say("%s %s", map[string]string{api.ActRevoke: "revoked", api.ActDemote: "demoted", api.ActPromote: "promoted"}[found.Act.Kind], described(api.Party{ID: news.ID, Name: found.Target.Name}))
			c.fate(found, req)
			return
		}
		confirmed = append(confirmed, news.Member)
		c.say("confirmed by %s, %d to go", news.Member, news.Waiting)
	})
	if done {
		said := committed{api.Schema, found.Act, found.Target, append([]api.Party{}, found.Others...), req.Keep,
			append([]api.Revoked{}, found.Revocations...), req.KeepRevoked, confirmed, waiting}
		if printed := c.con.done(said); err == nil && printed != nil {
			return printed
		}
	}
	var changed *api.Error
	switch {
	case errors.As(err, &changed) && changed.Code == api.CodeChanged:
		return hinted(err, "say it again, to see what has changed; nothing was done")
	case errors.Is(err, context.Canceled) && done:
		return fmt.Errorf("stopped waiting: %s not confirmed; it stands and goes on spreading", plural(waiting, "member has", "members have"))
	case err == nil && req.Wait:
		c.say("all members have confirmed")
	}
	return err
}

// fate says in a line each what became of the others.
func (c powerCommand) fate(found api.Consequences, req api.Commit) {
	pick := func(first bool, a, b string) string {
		if first {
			return a
		}
		return b
	}
	if n := len(found.Others); n > 0 {
		c.say("%s", pick(req.Keep, plural(n, "other stays", "others stay"), plural(n, "other is out as well", "others are out as well")))
	}
	if n := len(found.Revocations); n > 0 {
		c.say("%s", pick(req.KeepRevoked, plural(n, "revocation by it stands", "revocations by it stand"),
			plural(n, "revocation by it has no effect any more", "revocations by it have no effect any more")))
	}
}
