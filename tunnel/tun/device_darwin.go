package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// control is the name under which the kernel gives utun interfaces.
const control = "com.apple.net.utun_control"

// familySize is the length in bytes of the address family that stands before each packet of utun, big endian. It takes the
// last bytes of the place of the header.
const familySize = 4

// Device is an open utun interface.
type Device struct {
	file   *os.File
	raw    syscall.RawConn
	name   string
	closed atomic.Bool
}

// Open makes an interface: "utun" has the kernel choose the number, "utun7" is that one. Errors are os.ErrPermission, and
// os.ErrExist where the number is taken.
func Open(o Options) (*Device, error) {
	unit, err := unitOf(o.Name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_SYSTEM, unix.SOCK_DGRAM, 2) // SYSPROTO_CONTROL
	if err != nil {
		return nil, fmt.Errorf("open utun: %w", err)
	}
	unix.CloseOnExec(fd)
	d := &Device{}
	if err := d.attach(fd, unit); err != nil {
		return nil, errors.Join(fmt.Errorf("make interface %q: %w", o.Name, standard(err)), unix.Close(fd))
	}
	d.file = os.NewFile(uintptr(fd), d.name)
	if d.raw, err = d.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("open utun: %w", err), d.file.Close())
	}
	return d, nil
}

// unitOf returns the unit that the kernel counts from 1, 0 for any.
func unitOf(name string) (uint32, error) {
	rest, ok := strings.CutPrefix(name, "utun")
	if !ok && name != "" {
		return 0, fmt.Errorf("make interface %q: the name must be utun, with or without a number", name)
	}
	if rest == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(rest, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("make interface %q: the name must be utun, with or without a number", name)
	}
	return uint32(n) + 1, nil
}

func (d *Device) attach(fd int, unit uint32) error {
	var id unix.CtlInfo
	copy(id.Name[:], control)
	if err := unix.IoctlCtlInfo(fd, &id); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrCtl{ID: id.Id, Unit: unit}); err != nil {
		return err
	}
	name, err := unix.GetsockoptString(fd, 2, 2) // SYSPROTO_CONTROL, UTUN_OPT_IFNAME
	if err != nil {
		return err
	}
	d.name = name
	return unix.SetNonblock(fd, true)
}

// standard makes an error of package os of those of the kernel that mean one, and that syscall does not know as such.
func standard(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", os.ErrExist, err)
	case errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return err
}

// Name returns the name of the interface.
func (d *Device) Name() string { return d.name }

// File returns the file of the interface, for those who ask the kernel about it; it stays the Device's.
func (d *Device) File() *os.File { return d.file }

// Offloads returns that each frame is one packet.
func (d *Device) Offloads() Offloads { return Offloads{} }

// Pump hands frames to the sink until the device is closed. It reads until nothing waits, says so, and sleeps. Errors are
// os.ErrClosed and os.ErrNotExist.
func (d *Device) Pump(to Sink) error {
	buf := make([]byte, MaxFrame+slack)
	var failed error
	err := d.raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf[HeaderSize-familySize:MaxFrame])
			switch {
			case err == nil && n > familySize:
				clear(buf[:HeaderSize])
				to.Frame(buf[:HeaderSize-familySize+n])
			case err == nil, errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				to.Dry()
				return false
			default:
				failed = standard(err)
				return true
			}
		}
	})
	switch {
	case err == nil:
		err = failed
	case d.closed.Load(): // package os has no word of its own for it here
		err = os.ErrClosed
	}
	return fmt.Errorf("read from interface %s: %w", d.name, err)
}

// Write writes one frame, whose header it writes over.
func (d *Device) Write(frame []byte) (int, error) {
	if len(frame) <= HeaderSize {
		return 0, ErrFrame
	}
	family := uint32(unix.AF_INET)
	if frame[HeaderSize]>>4 == 6 {
		family = unix.AF_INET6
	}
	binary.BigEndian.PutUint32(frame[HeaderSize-familySize:], family)
	if _, err := d.file.Write(frame[HeaderSize-familySize:]); err != nil {
		return 0, fmt.Errorf("write to interface %s: %w", d.name, standard(err))
	}
	return len(frame), nil
}

// SetQueue does nothing: the queue of utun is not ours to set.
func (d *Device) SetQueue(int) error { return nil }

// SetMTU sets the MTU in bytes.
func (d *Device) SetMTU(mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("set MTU of interface %s: %w", d.name, err)
	}
	defer unix.Close(fd)
	request := unix.IfreqMTU{MTU: int32(mtu)}
	copy(request.Name[:], d.name)
	if err := unix.IoctlSetIfreqMTU(fd, &request); err != nil {
		return fmt.Errorf("set MTU %d of interface %s: %w", mtu, d.name, standard(err))
	}
	return nil
}

// Close closes the device; a Pump returns, and the interface goes.
func (d *Device) Close() error {
	d.closed.Store(true)
	return d.file.Close()
}
