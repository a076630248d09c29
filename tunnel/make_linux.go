package tunnel

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// pollEvery is how often the interface is looked at without a notice: a look takes less than a millisecond.
const pollEvery = 10 * time.Second

// tunPath is where the kernel gives TUN devices.
const tunPath = "/dev/net/tun"

// makeTUN makes a TUN device, or takes a persistent one over. tun.CreateTUN is not used: the device that it makes ends with the first
// netlink message that was lost, as when ten thousand addresses come at once. This one ends with its interface, which
// is watched in link.go. Its errors wrap those of the system.
func makeTUN(name string, mtu int) (tun.Device, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunPath, err)
	}
	fail := func(err error) (tun.Device, error) { return nil, errors.Join(err, unix.Close(fd)) }
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fail(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR) // whole batches of TCP and UDP in one read
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fail(fmt.Errorf("make TUN device: %w", err))
	}
	if err := setMTU(name, mtu); err != nil {
		return fail(fmt.Errorf("set MTU %d of TUN device: %w", mtu, err))
	}
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd) // it is non-blocking from here on
	if err != nil {
		// The file that was made of fd closes it when it is collected. Closed here too, the number might be somebody else's by then.
		return nil, fmt.Errorf("open TUN device: %w", err)
	}
	return dev, nil
}

// setMTU sets the MTU of an interface, which the device asks for when it is made.
func setMTU(name string, mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint32(uint32(mtu))
	return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, request)
}
