package verdict

import "time"

const (
	// IdleAfter is when a handshake is too old for packets to go by its keys: WireGuard refuses them after 180 s.
	IdleAfter = 180 * time.Second
	// youngFor is how long a first try may take until it is worth an explanation: signalling, and an attempt of 6 s.
	youngFor = 8 * time.Second
	// deafAfter is how long the session of a peer that is off may still seem to be up (QUIC's idle timeout).
	deafAfter = 45 * time.Second
	// answerTime is how long ago a peer may have been heard that does not answer a ping: nat checks its path after 0.4 s.
	answerTime = 2 * time.Second
	// usualPort is the UDP port of a node that was not told another one.
	usualPort = 9277
)

// Judge says why a member is reached as it is. It goes from what is certain to what is likely, and names a cause only where the evidence
// leaves no other one; else it says what is known, and what is not.
func Judge(e Evidence) Verdict {
	if e.Left {
		return Verdict{Kind: HasLeft, Conclusion: LeftMesh{e.There.ID}, Fix: InviteAgain{e.There.ID}}
	}
	if e.NoTunnel != "" {
		return Verdict{Kind: Untied, Conclusion: How{Peer: e.There.ID}, Cause: Plain(e.NoTunnel), Fix: AnotherKey{e.There.ID}}
	}
	if e.There.Port == 0 {
		e.There.Port = portOf(e.Attempts)
	}
	if e.Session {
		e.Sessions = max(1, e.Sessions)
	}
	if e.Path.Kind == NoPath {
		v := e.refusedHere(e.unreached())
		v.Conclusion = How{Peer: e.There.ID}
		return v
	}
	if v, silent := e.unanswered(); silent {
		switch {
		case e.Ping.Answered: // at one of its addresses
			v.Conclusion = How{e.There.ID, e.Path, Answered}
		case v.Kind == HandshakeUnanswered, v.Kind == Handshaking, v.Kind == Silent && !e.pathMute():
			v.Conclusion = How{e.There.ID, e.Path, PathAnswers}
		default:
			v.Conclusion = How{e.There.ID, e.Path, NotAnswered}
			v = e.refusedHere(v)
		}
		return v
	}
	v := e.refusedHere(e.reached())
	if e.Policy.Bars { // whatever else there is to say of the path, nothing may go by it
		v = Verdict{Kind: PolicyBars, Cause: Forbidden{e.There.ID, e.Policy.BarsBack}, Fix: ChangePolicy}
	}
	v.Conclusion = How{e.There.ID, e.Path, Answered}
	if !e.Ping.Answered && e.Contact() != Up {
		v.Conclusion = How{e.There.ID, e.Path, NotAsked}
	}
	return v
}

// portOf is the port of the shared socket of a peer, which its host candidates show.
func portOf(attempts []Attempt) uint16 {
	for _, a := range attempts {
		for _, p := range a.Pairs {
			if p.Type == host {
				return p.Remote.Port()
			}
		}
	}
	return usualPort
}

// unanswered is about a peer to which there is a path, and that does not answer over it; false when nothing says so. A ping that is
// answered has passed the path, the keys and the far side: then nothing else counts.
func (e *Evidence) unanswered() (v Verdict, silent bool) {
	peer := e.There.ID
	young := !e.Since.IsZero() && e.Now.Sub(e.Since) < youngFor
	bar, blocked := barred(e.Ping.Passages)
	switch {
	case blocked && (e.Ping.Answered || !e.Keyed.IsZero()):
		return Verdict{Kind: KernelBars, Cause: Barred{bar, peer}, Fix: Unbar{bar, peer}}, true
	case e.Ping.Answered:
		return v, false
	case e.Keyed.IsZero() && young && !e.Missing():
		return Verdict{Kind: Handshaking, Cause: HandshakeRuns}, true
	case (e.Missing() || e.Life == Dead && e.Sessions > 0) && e.unheard() && e.Now.Sub(e.LastHeard()) > answerTime:
		return e.off(0), true
	case e.pathMute():
		return Verdict{Kind: Silent, Cause: NoAnswer{peer}, Fix: IsChecked}, true
	case e.Keyed.IsZero(), e.Ping.Asked && e.Now.Sub(e.Keyed) > IdleAfter:
		return Verdict{Kind: HandshakeUnanswered, Cause: NoKeys{Never: e.Keyed.IsZero()}, Fix: RestartThere{peer}}, true
	case e.Ping.Asked:
		return Verdict{Kind: Silent, Cause: NoAnswerInside{peer}, Fix: LookInside{e.Here.ID, peer}}, true
	}
	return v, false
}

// unheard reports whether the peer was asked, and has not been heard by its way since.
func (e *Evidence) unheard() bool {
	return e.Ping.Asked && !e.Ping.Answered && e.Now.Sub(e.byWay()) > answerTime
}

// pathMute reports whether the path itself brings no sign of the peer.
func (e *Evidence) pathMute() bool { return e.Overdue || e.owes() || e.Missing() || e.unheard() }

// reached is about a peer to which packets go, as far as is known.
func (e *Evidence) reached() Verdict {
	switch {
	case e.Path.TCP:
		return e.streamed()
	case e.Bursts.Vanish():
		return Verdict{Kind: BatchesLost, Cause: BatchesVanish{e.Bursts}, Fix: NoOffload{e.Here.ID}}
	case e.Path.Kind == DirectPath:
		return Verdict{Kind: Direct}
	}
	if e.promising() {
		return Verdict{Kind: Trying, Cause: DirectIsTried}
	}
	if trial, tried := e.lastTrial(); !tried && !e.There.NAT.UDPBlocked && !e.Here.NAT.UDPBlocked {
		return Verdict{Kind: Trying, Cause: DirectIsTried}
	} else if trial.Nominated.IsValid() {
		return Verdict{Kind: Unstable, Cause: DirectIsLost{trial.Nominated}, Fix: Repeated}
	}
	return e.indirect()
}

// streamed is about a peer to which packets go by a stream.
func (e *Evidence) streamed() Verdict {
	switch {
	case e.UDP.State == UDPReturning:
		return Verdict{Kind: Trying, Cause: UDPReturns, Fix: Wait}
	case e.UDP.State == UDPBlocked || e.UDP.State == UDPUsed && e.Here.NAT.UDPBlocked:
		return Verdict{Kind: UDPBlockedHere, Cause: NoUDPHere{Why: e.UDP.Reason, Streams: true}, Fix: LetOut{e.Here.ID}}
	case e.There.NAT.UDPBlocked:
		return Verdict{Kind: UDPBlockedThere, Cause: NoUDPThere{Peer: e.There.ID, Streams: true}, Fix: LetOut{e.There.ID}}
	}
	return Verdict{Kind: Trying, Cause: StreamForNow, Fix: Wait}
}

// unreached is about a peer to which no path is known.
func (e *Evidence) unreached() Verdict {
	peer, s := e.There.ID, e.Signals
	waited := time.Duration(0)
	if !s.Since.IsZero() {
		waited = e.Now.Sub(s.Since)
	}
	switch {
	case e.Ping.Answered: // and the way over which it was is gone since
		return Verdict{Kind: Lost, Cause: JustLost{peer}, Fix: AskAgain}
	case len(e.Refusals) > 0 && e.Sessions == 0:
		return Verdict{Kind: Refused, Cause: RefusedBy{e.Refusals}, Fix: SeeStatus}
	case e.Sessions == 0:
		return Verdict{Kind: Isolated, Cause: NoSession{peer}, Fix: SeeNetcheck}
	case s.Skewed:
		return Verdict{Kind: Clock, Cause: ClocksDiffer{e.Here.ID, peer}, Fix: SetClocks}
	case s.Refused:
		return Verdict{Kind: Refused, Cause: NotKnownTo{peer}, Fix: WaitForRecords{peer}}
	case s.NoRoute != "":
		return Verdict{Kind: NoWay, Cause: NoRoute{peer, s.NoRoute}, Fix: Start{peer}}
	case s.Unanswered > 0 && waited < youngFor && e.Life != Dead && !e.Keyed.IsZero():
		return Verdict{Kind: Lost, Cause: JustLost{peer}, Fix: AskAgain}
	case s.Unanswered > 0 && waited < youngFor && e.Life != Dead:
		return Verdict{Kind: Trying, Cause: AskedJustNow{peer}, Fix: AskAgain}
	case s.Unanswered > 0 && e.there() && waited > deafAfter:
		return e.deaf()
	case s.Unanswered > 0 && e.Now.Sub(e.LastHeard()) < max(waited, answerTime):
		return Verdict{Kind: Trying, Cause: AnswersLate{peer, e.Now.Sub(e.LastHeard()), waited}, Fix: AskAgain}
	case s.Unanswered > 0:
		return e.off(waited)
	}
	trial, tried := e.lastTrial()
	switch {
	case !tried, e.promising():
		return Verdict{Kind: Trying, Cause: PathIsTried{peer}, Fix: Wait}
	case trial.Nominated.IsValid():
		return Verdict{Kind: Lost, Cause: DirectIsLost{trial.Nominated}, Fix: AskAgain}
	}
	v := e.indirect()
	v.Cause = Unrelayed{Cause: v.Cause, Peer: peer, Relay: e.Relay, Why: e.Pathless}
	return v
}

// there reports whether the peer is heard though it answers no introduction. That gossip takes it to be alive says little: it takes
// minutes to miss a member that others hardly ask.
func (e *Evidence) there() bool {
	return e.Session && e.Life != Dead || !e.Signals.Since.IsZero() && e.Beside.Sub(e.Signals.Since) > youngFor
}

// off is about a peer of which nothing is heard.
func (e *Evidence) off(waited time.Duration) Verdict {
	cause := NothingHeard{Peer: e.There.ID, Waited: waited, Life: e.Life, Session: e.Session}
	if e.Sessions == 0 {
		cause.Life = LifeUnknown // nobody says anything
	}
	last := later(e.LastHeard(), e.Signals.Heard)
	if last.IsZero() {
		cause.Never = true
	} else {
		cause.Ago = e.Now.Sub(last)
	}
	return Verdict{Kind: Off, Cause: cause, Fix: Start{e.There.ID}}
}

// deaf is about a peer that is there, and answers no introduction.
func (e *Evidence) deaf() Verdict {
	peer := e.There.ID
	if older(e.There.Version, e.Here.Version) {
		return Verdict{Kind: OlderVersion, Cause: IsOlder{peer, e.There.Version, e.Here.Version}, Fix: Update{peer}}
	}
	return Verdict{Kind: Deaf, Cause: AnswersNoIntroduction{peer}, Fix: SeeThere{e.Here.ID}}
}

// lastTrial is the newest attempt that has ended and shows something; false when there is none. One that was cut short shows nothing by itself: but
// when there are as many as make a pattern, the newest counts.
func (e *Evidence) lastTrial() (Attempt, bool) {
	const pattern = 3
	var short []Attempt
	for _, a := range e.Attempts {
		switch {
		case a.Ended.IsZero():
		case a.cutShort():
			short = append(short, a)
		default:
			return a, true
		}
	}
	if len(short) >= pattern {
		return short[0], true
	}
	return Attempt{}, false
}

// promising reports whether an attempt runs in which the peer is heard, or can be tried as it could not before: what the last one has shown
// may be so no more.
func (e *Evidence) promising() bool {
	if len(e.Attempts) == 0 || !e.Attempts[0].Ended.IsZero() {
		return false
	}
	_, answered, heard, able := e.Attempts[0].sums()
	before, _ := e.lastTrial()
	_, _, _, wasAble := before.sums()
	return answered+heard > 0 || able > 0 && wasAble == 0 || len(e.Attempts[0].Pairs) > 0 && len(before.Pairs) == 0
}

// indirect is why no pair of addresses works between two nodes that do hear each other.
func (e *Evidence) indirect() Verdict {
	trial, _ := e.lastTrial()
	self, peer := e.Here.ID, e.There.ID
	sent, answered, heard, able := trial.sums()
	here, there := e.Here.NAT.Mapping.Dependent(), e.There.NAT.Mapping.Dependent()
	mute := answered == 0 && heard == 0
	switch {
	case e.Here.NAT.UDPBlocked && e.UDP.State == UDPReturning:
		return Verdict{Kind: Trying, Cause: UDPReturnsSoon, Fix: Wait}
	case e.Here.NAT.UDPBlocked && mute:
		return Verdict{Kind: UDPBlockedHere, Cause: NoUDPHere{Why: e.UDP.Reason}, Fix: LetOut{self}}
	case e.There.NAT.UDPBlocked && mute:
		return Verdict{Kind: UDPBlockedThere, Cause: NoUDPThere{Peer: peer, Streams: e.Path.Kind != NoPath}, Fix: LetOut{peer}}
	case e.Here.NAT.PortTaken:
		return portTaken(e.Here)
	case e.There.NAT.PortTaken:
		return portTaken(e.There)
	case len(trial.Pairs) > 0 && able == 0:
		return Verdict{Kind: NoCommonFamily, Cause: FamiliesDiffer{self, peer}, Fix: AddFamily}
	case len(trial.Pairs) == 0 && len(e.Attempts) > 0:
		return Verdict{Kind: NoCandidates, Cause: NoAddress{peer}, Fix: NetcheckThere{peer}}
	case here && there:
		return Verdict{Kind: BothMapByDestination, Cause: BothMap{e.Here, e.There}, Fix: e.openOne()}
	case e.sameNAT() && sent > 0 && answered == 0:
		return Verdict{Kind: SameRouter, Cause: RouterParts{self, peer}, Fix: IsolationOff}
	case here && !e.There.NAT.LetsIn():
		return Verdict{Kind: MapsByDestination, Cause: OneMaps{Hard: e.Here, Guarded: e.There}, Fix: e.openOne()}
	case there && !e.Here.NAT.LetsIn():
		return Verdict{Kind: MapsByDestination, Cause: OneMaps{Hard: e.There, Guarded: e.Here}, Fix: e.openOne()}
	}
	return e.dropped(sent, answered, heard)
}

// sameNAT reports whether both are seen under one address.
func (e *Evidence) sameNAT() bool {
	for _, a := range e.Attempts {
		if a.mappedTo(e.Mapped) {
			return true
		}
	}
	return false
}

// RevokedNode is about a node that is a member no more.
type RevokedNode struct {
	Name   string // its last one, or a part of its ID
	By     string // name of the admin
	At     time.Time
	Reason string // "" for none given
}

// JudgeRevoked says that it was put out, and by whom.
func JudgeRevoked(r RevokedNode) Verdict {
	return Verdict{Kind: Revoked, Conclusion: NoMember{r.Name}, Cause: PutOut{r.By, r.At, r.Reason}, Fix: JoinAnew{r.Name}}
}
