package tun

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// path is where the kernel gives TUN interfaces.
const path = "/dev/net/tun"

// Device is an open TUN interface, or one queue of it.
type Device struct {
	file   *os.File
	raw    syscall.RawConn
	name   string
	with   Offloads
	closed atomic.Bool
}

// Open makes an interface, or takes over a persistent one. Errors are os.ErrPermission, os.ErrNotExist where the kernel has no TUN,
// and os.ErrExist where another process has the interface.
func Open(o Options) (*Device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, standard(err))
	}
	d := &Device{}
	if err := d.attach(fd, o); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	d.file = os.NewFile(uintptr(fd), path) // it is non-blocking, so the runtime polls it
	if d.raw, err = d.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), d.file.Close())
	}
	return d, nil
}

// attach makes the file one of the interface, and asks for what it can do in one piece.
func (d *Device) attach(fd int, o Options) error {
	request, err := unix.NewIfreq(o.Name)
	if err != nil {
		return fmt.Errorf("make TUN interface %q: %w", o.Name, err)
	}
	flags := unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if o.Shared {
		flags |= unix.IFF_MULTI_QUEUE
	}
	request.SetUint16(uint16(flags))
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("make TUN interface %q: %w", o.Name, standard(err))
	}
	d.name = request.Name()
	if o.Plain {
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		d.with = Offloads{TCP: true, UDP: true}
		return nil
	}
	d.with.TCP = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp) == nil // without, frames are packets
	return nil
}

// standard makes an error of package os of those of the kernel that mean one, and that syscall does not know as such.
func standard(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", os.ErrExist, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EBADFD):
		return fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return err
}

// Name returns the name of the interface as it was made.
func (d *Device) Name() string { return d.name }

// File returns the file of the interface, for those who ask the kernel about it; it stays the Device's.
func (d *Device) File() *os.File { return d.file }

// Offloads returns what may be in a frame, in both directions.
func (d *Device) Offloads() Offloads { return d.with }

// Pump hands frames to the sink until the device is closed, or its interface is gone. It reads until nothing waits, says so, and
// sleeps. Errors are os.ErrClosed and os.ErrNotExist.
func (d *Device) Pump(to Sink) error {
	buf := make([]byte, MaxFrame+slack)
	var failed error
	err := d.raw.Read(func(fd uintptr) bool {
		for {
			// A read copies what is there or fails at once, so that the scheduler need not hear of it.
			n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), MaxFrame)
			switch errno {
			case 0:
				to.Frame(buf[:n])
			case unix.EINTR:
			case unix.EAGAIN:
				to.Dry()
				return false
			default:
				failed = standard(errno)
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

// Write writes one frame. os.ErrNotExist says that the interface is gone, syscall.EINVAL that the kernel does not take this frame,
// syscall.EIO that the interface is down.
func (d *Device) Write(frame []byte) (int, error) {
	n, err := d.file.Write(frame)
	if err != nil {
		return n, fmt.Errorf("write to interface %s: %w", d.name, standard(err))
	}
	return n, nil
}

// SetQueue sets how many packets (large segments count as one) may wait in the kernel until they are read; the system gives
// an interface 500.
func (d *Device) SetQueue(packets int) error {
	return d.set(unix.SIOCSIFTXQLEN, "queue", packets)
}

// SetMTU sets the MTU in bytes.
func (d *Device) SetMTU(mtu int) error { return d.set(unix.SIOCSIFMTU, "MTU", mtu) }

// set changes a number of the interface.
func (d *Device) set(what uint, word string, value int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s of interface %s: %w", word, d.name, err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(d.name)
	if err != nil {
		return fmt.Errorf("set %s of interface %s: %w", word, d.name, err)
	}
	request.SetUint32(uint32(value))
	if err := unix.IoctlIfreq(fd, what, request); err != nil {
		return fmt.Errorf("set %s %d of interface %s: %w", word, value, d.name, standard(err))
	}
	return nil
}

// Close closes the device; a Pump returns, and an interface that is not persistent goes.
func (d *Device) Close() error {
	d.closed.Store(true)
	return d.file.Close()
}
