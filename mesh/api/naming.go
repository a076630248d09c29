package api

import (
	"context"
	"fmt"
	"net/http"
)

// Naming is what can be said about this node's own name.
type Naming interface {
	// Rename has this node want another name, now and after the next start. It is granted by an admin's agent, which makes it unique.
	Rename(ctx context.Context, req RenameRequest) error
}

// RenameRequest is the body of POST /v1/rename.
type RenameRequest struct {
	Name string `json:"name"` // a DNS label in lower case
}

func (r *RenameRequest) check() error {
	if r.Name == "" || len(r.Name) > MaxTagLength {
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("name %.80q: want 1 to %d characters", r.Name, MaxTagLength)}
	}
	return nil
}

func (s *Server) rename(w http.ResponseWriter, r *http.Request) error {
	var req RenameRequest
	if err := decode(w, r, &req, req.check); err != nil {
		return err
	}
	if err := s.backend.Rename(r.Context(), req); err != nil {
		return err
	}
	return s.answer(w, struct{}{})
}

// Rename has the node want another name.
func (c *Client) Rename(ctx context.Context, req RenameRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/rename", req, &struct{}{})
}
