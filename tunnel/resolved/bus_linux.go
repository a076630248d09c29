package resolved

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"
)

const (
	service = "org.freedesktop.resolve1"
	object  = "/org/freedesktop/resolve1"
	manager = "org.freedesktop.resolve1.Manager"
	daemon  = "org.freedesktop.DBus"
)

// system is the system's bus.
type system struct {
	conn    *dbus.Conn
	changed chan struct{}
}

func dial(ctx context.Context) (bus, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	s := &system{conn: conn, changed: make(chan struct{}, 1)}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	err = conn.AddMatchSignal(dbus.WithMatchSender(daemon), dbus.WithMatchInterface(daemon), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, service))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch systemd-resolved: %w", err)
	}
	// It ends with the connection, which closes the channel.
	go func() {
		defer close(s.changed)
		for range signals {
			select {
			case s.changed <- struct{}{}:
			default:
			}
		}
	}()
	return s, nil
}

func (s *system) close() error             { return s.conn.Close() }
func (s *system) changes() <-chan struct{} { return s.changed }

func (s *system) owned(ctx context.Context) (yes bool, err error) {
	err = s.conn.BusObject().CallWithContext(ctx, daemon+".NameHasOwner", 0, service).Store(&yes)
	return yes, err
}

func (s *system) call(ctx context.Context, method string, args ...any) error {
	err := s.conn.Object(service, object).CallWithContext(ctx, manager+"."+method, dbus.FlagNoAutoStart, args...).Err
	var refusal dbus.Error
	if errors.As(err, &refusal) && (refusal.Name == daemon+".Error.ServiceUnknown" || refusal.Name == daemon+".Error.NameHasNoOwner") {
		return ErrAbsent
	}
	return err
}
