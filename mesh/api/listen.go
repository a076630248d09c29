package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ErrInUse is wrapped by Listen when another agent answers on the socket.
var ErrInUse = errors.New("another agent answers there")

// Listen makes the socket of the local API with mode 0660, and its directory with 0755 if there is none. The socket belongs to
// group, if the system has it and this process may hand it over; otherwise only its owner can open it.
//
// The socket of a killed agent is replaced, in one step: whoever dials finds the old one or the new one.
func Listen(path, group string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make socket directory: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, ErrInUse)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := publish(fresh, path, group); err != nil {
		l.Close()
		os.Remove(fresh)
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("stat socket: %w", err)
	}
	return &socket{UnixListener: l, path: path, info: info}, nil
}

func publish(fresh, path, group string) error {
	mode := os.FileMode(0o600)
	if gid, ok := groupID(group); ok && os.Chown(fresh, -1, gid) == nil {
		mode = 0o660
	}
	if err := os.Chmod(fresh, mode); err != nil {
		return fmt.Errorf("set mode of socket: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("name socket: %w", err)
	}
	return nil
}

func groupID(name string) (int, bool) {
	if name == "" {
		return 0, false
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}

// socket removes its file when it is closed, unless another agent has put its own there meanwhile. It asks the kernel
// who called, and turns callers away beyond maxConns.
type socket struct {
	*net.UnixListener
	path string
	info os.FileInfo
	open atomic.Int32
}

func (s *socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		who, err := callerOf(c)
		if err != nil || s.open.Add(1) > maxConns {
			if err == nil {
				s.open.Add(-1)
			}
			c.Close()
			continue
		}
		return &callerConn{UnixConn: c, caller: who, release: sync.OnceFunc(func() { s.open.Add(-1) })}, nil
	}
}

func (s *socket) Close() error {
	if now, err := os.Stat(s.path); err == nil && os.SameFile(now, s.info) {
		os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// callerConn is a connection with the process at its other end.
type callerConn struct {
	*net.UnixConn
	caller  caller
	release func()
}

func (c *callerConn) Close() error {
	c.release()
	return c.UnixConn.Close()
}

// caller is the process at the other end of a connection, as the kernel says.
type caller struct {
	uid uint32
}

func (c caller) mayChange() bool { return c.uid == 0 || int(c.uid) == os.Geteuid() }

func callerOf(c *net.UnixConn) (caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return caller{}, err
	}
	var who caller
	var whoErr error
	if err := raw.Control(func(fd uintptr) { who, whoErr = callerOfSocket(int(fd)) }); err != nil {
		return caller{}, err
	}
	return who, whoErr
}

type callerKey struct{}

// withCaller puts the caller into the context of each request of a connection.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*callerConn); ok {
		return context.WithValue(ctx, callerKey{}, c.caller)
	}
	return ctx
}
