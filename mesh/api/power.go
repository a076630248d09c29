package api

import (
	"context"
	"net/netip"
)

// Power is what admins, and whoever has the root key, can do to others, in two steps: first what would come of it is shown, then it is
// done to those that were shown and to nobody else.
type Power interface {
	// Consequences says who and what goes with what is asked for. It signs nothing.
	Consequences(ctx context.Context, act Act) (Consequences, error)
	// Commit does it. It refuses with CodeChanged when the consequences are not those that were shown any more. It calls
	// confirm from the calling goroutine once for what was done and, when req.Wait is set, once for each member that
	// has heard of it, until all have or ctx ends.
	Commit(ctx context.Context, req Commit, confirm func(Confirmation)) error
}

// The kinds of Act.
const (
	ActRevoke  = "revoke"  // puts a node out, or ends an invite
	ActDemote  = "demote"  // makes a member of an admin
	ActPromote = "promote" // makes an admin of a member
)

// Act is something that an admin may do: the body of POST /v1/consequences.
type Act struct {
	Kind       string `json:"kind"`
	Node       string `json:"node,omitempty"`        // name, overlay address or the start of an ID
	Invite     string `json:"invite,omitempty"`      // to revoke an invite: the start of its ID
	KeepInvite bool   `json:"keep_invite,omitempty"` // to revoke a node: not also the invite by which it came
	Root       bool   `json:"root,omitempty"`        // the root key will sign it, not this node's
}

// Consequences is the answer to POST /v1/consequences: what is true of the records at this moment.
type Consequences struct {
	Schema int    `json:"schema"`
	Act    Act    `json:"act"`    // as it was asked, Node and Invite as whole IDs
	By     string `json:"by"`     // who signs: the name of this node, or "the root"
	Target Party  `json:"target"` // the node, or the invite
	// Others are out as well unless they are kept: whom Target has let in, and who came by its invites.
	Others []Party `json:"others"`
	// Revocations are those by Target that have no effect any more unless they are kept: whom they put out is back then.
	Revocations []Revoked `json:"revocations"`
	Demoted     []Party   `json:"demoted"` // whom Target made admins: they are members only from then on
	Ends        []Invited `json:"ends"`    // invites that admit nobody any more, and that could be used until now
	// Came is the invite by which Target came, which ends as well; absent when there is none, it has ended, or it is kept.
	Came *CameBy `json:"came,omitempty"`
	// Remarks are what a person should know before saying yes.
	Remarks []string `json:"remarks"`
	// Key is the public key of Target, to promote it.
	Key []byte `json:"key,omitempty"`
	// Shown stands for all of the above, for Commit.
	Shown string `json:"shown"`
}

// CameBy is an invite that is ended with a node that came by it.
type CameBy struct {
	ID   string  `json:"id"`
	Stay []Party `json:"stay"` // who came by it too, and whom those let in: they stay
}

// Party is a node, or an invite, and how it comes in.
type Party struct {
	ID      string     `json:"id"`      // 52 characters of base32
	Name    string     `json:"name"`    // "" for an invite
	Address netip.Addr `json:"address"` // overlay address; "" in JSON for an invite
	Admin   bool       `json:"admin"`
	Left    bool       `json:"left,omitempty"`
	Out     bool       `json:"out,omitempty"` // it is no member now
	How     string     `json:"how,omitempty"` // why it goes with the target, in words
}

// Commit is the body of POST /v1/commit.
type Commit struct {
	Act         Act    `json:"act"`          // as it was asked
	Shown       string `json:"shown"`        // of the Consequences
	Keep        bool   `json:"keep"`         // Others stay
	KeepRevoked bool   `json:"keep_revoked"` // Revocations stay in force
	Reason      string `json:"reason"`       // for the others to read
	Wait        bool   `json:"wait"`         // stream the confirmations of the members
	// Signed are the records, signed with the root key by who asks: with Act.Root, and only then. The key itself is not for the agent.
	Signed [][]byte `json:"signed,omitempty"`
}

// Confirmation is one line of the answer to POST /v1/commit. The first one, with Member empty, says what was done.
type Confirmation struct {
	Target  string `json:"target"`  // name of the node or ID of the invite
	ID      string `json:"id"`      // key ID of the target
	Member  string `json:"member"`  // name of the member that has heard of it
	Waiting int    `json:"waiting"` // members that have not confirmed yet
}

// complete fills in what a Backend may leave out.
func (c Consequences) complete() Consequences {
	c.Schema = Schema
	c.Others, c.Revocations, c.Demoted = orEmpty(c.Others), orEmpty(c.Revocations), orEmpty(c.Demoted)
	c.Ends = append([]Invited{}, c.Ends...)
	for i := range c.Ends {
		c.Ends[i].Tags = orEmpty(c.Ends[i].Tags)
	}
	c.Remarks = orEmpty(c.Remarks)
	if c.Came != nil {
		c.Came = &CameBy{ID: c.Came.ID, Stay: orEmpty(c.Came.Stay)}
	}
	return c
}

func (a *Act) check() error {
	switch {
	case a.Kind != ActRevoke && a.Kind != ActDemote && a.Kind != ActPromote:
		return refuse("kind of act %.20q: want %s, %s or %s", a.Kind, ActRevoke, ActDemote, ActPromote)
	case (a.Node == "") == (a.Invite == ""):
		return refuse("%s: want either a node or an invite", a.Kind)
	case a.Invite != "" && a.Kind != ActRevoke:
		return refuse("%s: want a node", a.Kind)
	case len(a.Node) > 255 || len(a.Invite) > 255:
		return refuse("%s: name or ID of more than 255 bytes", a.Kind)
	}
	return nil
}

func (c *Commit) check() error {
	if err := c.Act.check(); err != nil {
		return err
	}
	switch {
	case c.Shown == "":
		return refuse("%s: want what was shown of its consequences", c.Act.Kind)
	case len(c.Reason) > MaxReasonLength || !printable(c.Reason):
		return refuse("%s: reason: want at most %d printable bytes", c.Act.Kind, MaxReasonLength)
	case c.Act.Root != (len(c.Signed) > 0):
		return refuse("%s: signed records go with the root key, and with nothing else", c.Act.Kind)
	}
	return nil
}
