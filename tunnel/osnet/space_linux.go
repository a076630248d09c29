package osnet

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Another network namespace: a TUN device works from wherever its interface is, so that one which was moved away is neither gone nor of any use.

// ownSpace is the network namespace that the process is in.
const ownSpace = "/proc/thread-self/ns/net"

// space opens the network namespace that the interface is in (Linux 5.2 and later tell it to who may change interfaces there).
func (k *kernelLink) space() (space int, err error) {
	if k.file == nil {
		return -1, os.ErrNotExist
	}
	raw, err := k.file.SyscallConn()
	if err != nil {
		return -1, err
	}
	var errno unix.Errno
	var fd uintptr
	if err := raw.Control(func(tun uintptr) {
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, tun, unix.TUNGETDEVNETNS, 0)
	}); err != nil {
		return -1, err
	}
	if errno != 0 {
		return -1, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// tunName asks the TUN device for the name that the interface has where it is.
func (k *kernelLink) tunName() (string, error) {
	if k.file == nil {
		return "", os.ErrNotExist
	}
	raw, err := k.file.SyscallConn()
	if err != nil {
		return "", err
	}
	request, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	var failed error
	if err := raw.Control(func(tun uintptr) { failed = unix.IoctlIfreq(int(tun), unix.TUNGETIFF, request) }); err != nil {
		return "", err
	}
	return request.Name(), failed
}

// isElsewhere reports whether the TUN device still has an interface, which is not found here.
func (k *kernelLink) isElsewhere() bool {
	name, err := k.tunName()
	return err == nil && name != ""
}

// fetch moves the interface back, which has lost all that it had. Its index is another one if that was taken meanwhile.
func (k *kernelLink) fetch() error {
	refused := func(err error) error { return fmt.Errorf("%w: %w", ErrMoved, err) }
	name, err := k.tunName()
	if err != nil {
		return refused(err)
	}
	space, err := k.space()
	if err != nil {
		return refused(err)
	}
	defer unix.Close(space)
	own, err := os.Open(ownSpace)
	if err != nil {
		return refused(err)
	}
	defer own.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(space), unix.NETLINK_ROUTE)
	if err != nil {
		return refused(err)
	}
	defer h.Close()
	there, err := h.LinkByName(name)
	if err != nil {
		return refused(err)
	}
	if err := h.LinkSetNsFd(there, int(own.Fd())); err != nil {
		return refused(err)
	}
	// The name it has here may be another one, where its own was taken.
	if name, err = k.tunName(); err != nil {
		return refused(err)
	}
	here, err := k.h.LinkByName(name)
	if err != nil {
		return refused(err)
	}
	k.index.Store(int64(here.Attrs().Index))
	k.noLinkLocal()
	return nil
}
