package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// Limits of the client: an answer from a confused agent must not fill the memory of the caller. A status with
// 5,000 peers has about 4 MB.
const (
	maxAnswer = 64 << 20
	maxLine   = 1 << 20
)

// Client asks the agent that listens on a socket. The methods mirror Backend. Their errors are *Error as the
// agent sent it, or wrap ErrNotRunning, ErrNoAccess or ErrProtocol, or come from the context.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the agent at the socket. It does not dial yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{
		socket: socket,
		http:   &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}
}

// Status asks for a snapshot.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var status Status
	if err := c.call(ctx, http.MethodGet, "/v1/status", nil, &status); err != nil {
		return Status{}, err
	}
	if status.Schema != Schema {
		return Status{}, fmt.Errorf("%w: it speaks schema %d, this warren %d", ErrProtocol, status.Schema, Schema)
	}
	return status, nil
}

// Ping sends pings and calls reply for each answer or loss.
func (c *Client) Ping(ctx context.Context, req PingRequest, reply func(PingReply)) error {
	return stream(ctx, c, "/v1/ping", req, reply)
}

// Netcheck measures what the agent's network does with UDP.
func (c *Client) Netcheck(ctx context.Context) (Netcheck, error) {
	var report Netcheck
	err := c.call(ctx, http.MethodPost, "/v1/netcheck", nil, &report)
	return report, err
}

// Why asks why a peer is reached as it is.
func (c *Client) Why(ctx context.Context, req WhyRequest) (Why, error) {
	var why Why
	err := c.call(ctx, http.MethodPost, "/v1/why", req, &why)
	return why, err
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, req InviteRequest) (Invite, error) {
	var invite Invite
	err := c.call(ctx, http.MethodPost, "/v1/invite", req, &invite)
	return invite, err
}

// Consequences asks what would come of something.
func (c *Client) Consequences(ctx context.Context, act Act) (Consequences, error) {
	var found Consequences
	err := c.call(ctx, http.MethodPost, "/v1/consequences", act, &found)
	return found, err
}

// Commit does it, and calls confirm for each confirmation.
func (c *Client) Commit(ctx context.Context, req Commit, confirm func(Confirmation)) error {
	return stream(ctx, c, "/v1/commit", req, confirm)
}

// Leave makes the node leave its mesh.
func (c *Client) Leave(ctx context.Context, req LeaveRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/leave", req, &struct{}{})
}

// Reload makes the agent read its config file again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var out Reloaded
	return out, c.call(ctx, http.MethodPost, "/v1/reload", nil, &out)
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	answer, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if err := json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(into); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// stream reads an answer line by line. A line that holds only an error ends it.
func stream[T any](ctx context.Context, c *Client, path string, body any, each func(T)) error {
	answer, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	scanner := bufio.NewScanner(answer)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		if e := errorLine(scanner.Bytes()); e != nil {
			return e
		}
		var value T
		if err := json.Unmarshal(scanner.Bytes(), &value); err != nil {
			return c.broken(ctx, err)
		}
		each(value)
	}
	if err := scanner.Err(); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// errorLine tells an envelope from a line that merely has an "error" text, as a PingReply does.
func errorLine(line []byte) *Error {
	var e envelope
	if json.Unmarshal(line, &e) != nil {
		return nil
	}
	return e.Error
}

func (c *Client) do(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var payload io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://warren"+path, payload)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var e envelope
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLine)).Decode(&e); err != nil || e.Error == nil {
		return nil, fmt.Errorf("%w: HTTP status %d", ErrProtocol, resp.StatusCode)
	}
	return nil, e.Error
}

func (c *Client) unreached(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nothing answers on %s)", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (%s)", ErrNoAccess, c.socket)
	default:
		return fmt.Errorf("ask the agent: %w", err)
	}
}

func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrProtocol, err)
}
