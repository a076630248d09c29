package api

import (
	"errors"
	"net/http"
)

// Code says what kind of failure an Error is; programs may branch on it.
type Code string

// The codes of an Error.
const (
	CodeBadRequest Code = "bad-request" // the request itself is malformed
	CodeForbidden  Code = "forbidden"   // the caller may not do this
	CodeNotFound   Code = "not-found"   // no such peer, node or invite
	CodeAmbiguous  Code = "ambiguous"   // several peers match
	CodeRefused    Code = "refused"     // the state of the mesh or node does not allow it
	CodeChanged    Code = "changed"     // something else would come of it than what was shown
	CodeBadConfig  Code = "bad-config"  // reload: the config file is wrong
	CodeNotReady   Code = "not-ready"   // the agent is starting or stopping
	CodeFailed     Code = "failed"      // anything else
)

// Error is a failure as it travels over the socket: one line for a person, and where useful a hint what to do.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Error returns the message without the hint.
func (e *Error) Error() string { return e.Message }

// Errors of the Client, beside *Error and those of the context.
var (
	ErrNotRunning = errors.New("the agent is not running")
	ErrNoAccess   = errors.New("the agent's socket is not open to this user")
	ErrProtocol   = errors.New("the agent's answer cannot be understood")
)

func (c Code) httpStatus() int {
	switch c {
	case CodeBadRequest, CodeBadConfig:
		return http.StatusBadRequest
	case CodeForbidden:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeAmbiguous, CodeRefused, CodeChanged:
		return http.StatusConflict
	case CodeNotReady:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// asError turns any error into one that can be sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeFailed, Message: err.Error()}
}
