package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// Limits of the server. The socket is open to local users only, but a confused one must not hurt the agent.
const (
	maxBody    = 128 << 10 // bytes of a request; the largest honest one holds two signed revocations of 32 KiB, in base64
	maxConns   = 64        // connections at a time; each `status --watch` holds one
	maxHeader  = 8 << 10
	headerTime = 5 * time.Second
	bodyTime   = 5 * time.Second
	// answerTime bounds a whole answer. Streams (ping, commit) move their deadline on with every line.
	answerTime = 2 * time.Minute
)

// Bounds of PingRequest and InviteRequest.
const (
	MaxPings        = 10_000
	MinPingInterval = 10 * time.Millisecond
	MaxPingTimeout  = time.Minute
	MaxUses         = 10_000
	MaxTags         = 16
	MaxTagLength    = 63
	MaxReasonLength = 200
	MaxInviteLife   = 10 * 365 * 24 * time.Hour
)

// Server answers the local API out of a Backend.
type Server struct {
	backend Backend
	logger  *slog.Logger
	admin   func(caller) bool
}

// NewServer returns a server that lets everybody read who can open the socket, and lets root, and the user
// whom the agent runs as, change.
func NewServer(backend Backend, logger *slog.Logger) *Server {
	return &Server{backend: backend, logger: logger.With("part", "api"), admin: caller.mayChange}
}

// Serve answers connections of l, which should come from Listen, until ctx ends; then it lets requests under way finish
// for a moment, closes l, and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       answerTime,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve local API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	<-done
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.reading(s.status))
	mux.HandleFunc("POST /v1/ping", s.reading(s.ping))
	mux.HandleFunc("POST /v1/netcheck", s.reading(s.netcheck))
	mux.HandleFunc("POST /v1/why", s.reading(s.why))
	mux.HandleFunc("GET /v1/policy/log", s.reading(s.denials))
	mux.HandleFunc("POST /v1/invite", s.changing(s.invite))
	mux.HandleFunc("POST /v1/consequences", s.reading(s.consequences))
	mux.HandleFunc("POST /v1/commit", s.changing(s.commit))
	mux.HandleFunc("POST /v1/leave", s.changing(s.leave))
	mux.HandleFunc("GET /v1/devices", s.reading(s.devices))
	mux.HandleFunc("POST /v1/devices/add", s.changing(s.addDevice))
	mux.HandleFunc("POST /v1/devices/show", s.changing(s.device))
	mux.HandleFunc("POST /v1/devices/remove", s.changing(s.removeDevice))
	mux.HandleFunc("POST /v1/rename", s.changing(s.rename))
	mux.HandleFunc("POST /v1/reload", s.changing(s.reload))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, &Error{Code: CodeNotFound, Message: fmt.Sprintf("no such call: %s %.100s", r.Method, r.URL.Path),
			Hint: "the agent and this warren may be of different versions; compare `warren version` and `warren status`"})
	})
	return mux
}

// handler answers a request or returns the error to answer with.
type handler func(w http.ResponseWriter, r *http.Request) error

// reading lets every caller in whom the kernel names: the socket's mode has already kept out the others.
func (s *Server) reading(h handler) http.HandlerFunc {
	return s.checked(h, func(caller) bool { return true })
}

// changing lets in only those who may change the node.
func (s *Server) changing(h handler) http.HandlerFunc { return s.checked(h, s.admin) }

func (s *Server) checked(h handler, allow func(caller) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, known := r.Context().Value(callerKey{}).(caller)
		if !known || !allow(who) {
			s.fail(w, &Error{Code: CodeForbidden, Message: "only root may change this node", Hint: "try the same command with sudo"})
			return
		}
		if r.Method == http.MethodPost {
			s.logger.Debug("request", "url", r.URL.Path, "uid", who.uid)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := h(w, r); err != nil {
			s.fail(w, err)
		}
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	status, err := s.backend.Status(r.Context())
	if err != nil {
		return err
	}
	return s.answer(w, status.complete())
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	var req PingRequest
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	lines := newLines(w)
	return lines.end(s.backend.Ping(r.Context(), req, func(reply PingReply) { lines.write(reply) }))
}

func (s *Server) netcheck(w http.ResponseWriter, r *http.Request) error {
	report, err := s.backend.Netcheck(r.Context())
	if err != nil {
		return err
	}
	return s.answer(w, report.complete())
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) error {
	var req WhyRequest
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	why, err := s.backend.Why(r.Context(), req)
	if err != nil {
		return err
	}
	return s.answer(w, why.complete())
}

func (s *Server) invite(w http.ResponseWriter, r *http.Request) error {
	var req InviteRequest
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	invite, err := s.backend.Invite(r.Context(), req)
	if err != nil {
		return err
	}
	invite.Schema = Schema
	invite.Tags, invite.Anchors = orEmpty(invite.Tags), orEmpty(invite.Anchors)
	return s.answer(w, invite)
}

func (s *Server) consequences(w http.ResponseWriter, r *http.Request) error {
	var act Act
	if err := decode(w, r, &act, act.check); err != nil {
		return err
	}
	found, err := s.backend.Consequences(r.Context(), act)
	if err != nil {
		return err
	}
	return s.answer(w, found.complete())
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	var req Commit
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	lines := newLines(w)
	return lines.end(s.backend.Commit(r.Context(), req, func(c Confirmation) { lines.write(c) }))
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	var req LeaveRequest
	if err := decode(w, r, &req, func() error { return nil }); err != nil {
		return err
	}
	if err := s.backend.Leave(r.Context(), req); err != nil {
		return err
	}
	return s.answer(w, struct{}{})
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) error {
	reloaded, err := s.backend.Reload(r.Context())
	if err != nil {
		return err
	}
	return s.answer(w, reloaded)
}

func (s *Server) answer(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(Harmless(body), '\n')) // the caller has gone away: nobody is left to tell
	return nil
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	e := asError(err)
	body, err := json.Marshal(envelope{Error: e})
	if err != nil {
		panic("internal error: encode API error: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.httpStatus())
	_, _ = w.Write(append(Harmless(body), '\n'))
}

// envelope is how an error stands in an answer, and at the end of a stream.
type envelope struct {
	Error *Error `json:"error"`
}

// decode reads one JSON value of a known shape from the body and then lets check judge it. check is bound to
// the receiver before it is filled, so it is given as a method value of a pointer.
func decode(w http.ResponseWriter, r *http.Request, into any, check func() error) error {
	// The deadline is for the body alone: were it left standing, the server's watch for a caller who goes away
	// would run into it and cancel a long call.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &Error{Code: CodeBadRequest, Message: "request: more than one JSON value"}
	}
	return check()
}

func badRequest(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("request: larger than %d bytes", maxBody)}
	case errors.Is(err, io.EOF):
		return &Error{Code: CodeBadRequest, Message: "request: empty body, want a JSON object"}
	default:
		return &Error{Code: CodeBadRequest, Message: "request: " + strings.TrimPrefix(err.Error(), "json: ")}
	}
}
