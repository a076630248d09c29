package tunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
)

// controlTimeout bounds a connection to the control socket: while a client is in the middle of an operation
// the device can do no other. A thousand peers take a second; a busy machine may need twenty times that.
const controlTimeout = 30 * time.Second

// control serves WireGuard's configuration protocol on a Unix socket in the place where wg(8) and wgctrl look for
// it: /var/run/wireguard/NAME.sock, for root only.
//
// ipc.UAPIListen is not used: it ends for good when the socket is deleted. Here whoever needs the socket calls ensure.
type control struct {
	name   string
	device *device.Device
	wg     sync.WaitGroup
	file   os.FileInfo // of the socket as made, by the one who calls listen

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	closed   bool
}

// listenControl opens the socket. One that a killed run left behind is replaced.
func listenControl(name string, dev *device.Device) (*control, error) {
	c := &control{name: name, device: dev, conns: make(map[net.Conn]bool)}
	if err := c.listen(); err != nil {
		return nil, err
	}
	return c, nil
}

// listen opens the socket and starts serving it.
func (c *control) listen() error {
	file, err := ipc.UAPIOpen(c.name)
	if err != nil {
		return fmt.Errorf("open control socket of %s: %w (is there another WireGuard device of this name, perhaps in another network namespace?)", c.name, err)
	}
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("open control socket of %s: %w", c.name, err)
	}
	if unix, ok := listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(true) // not the default for a listener made from a file
	}
	if c.file, err = os.Stat(listener.Addr().String()); err != nil {
		return errors.Join(fmt.Errorf("open control socket of %s: %w", c.name, err), listener.Close())
	}
	c.mu.Lock()
	c.listener = listener
	c.mu.Unlock()
	c.wg.Go(func() { c.serve(listener) })
	return nil
}

// ensure sees to it that the socket is there and is this device's: it makes it again after somebody has deleted it.
func (c *control) ensure() error {
	c.mu.Lock()
	old := c.listener
	c.mu.Unlock()
	file, err := os.Stat(old.Addr().String())
	switch {
	case errors.Is(err, os.ErrNotExist):
		old.Close()
		return c.listen()
	case err != nil:
		return fmt.Errorf("find control socket of %s: %w", c.name, err)
	case !os.SameFile(file, c.file):
		return fmt.Errorf("find control socket of %s: it belongs to another device", c.name)
	}
	return nil
}

func (c *control) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		if !c.add(conn) {
			conn.Close()
			return
		}
		c.wg.Go(func() {
			c.device.IpcHandle(&plain{Conn: conn}) // closes conn
			c.remove(conn)
		})
	}
}

// add notes a connection; false when the socket has been closed.
func (c *control) add(conn net.Conn) bool {
	if err := conn.SetDeadline(time.Now().Add(controlTimeout)); err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.conns[conn] = true
	}
	return !c.closed
}

func (c *control) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// close removes the socket, cuts its connections and waits for them.
func (c *control) close() {
	c.mu.Lock()
	c.closed = true
	listener, conns := c.listener, c.conns
	c.conns = make(map[net.Conn]bool)
	c.mu.Unlock()
	listener.Close()
	for conn := range conns {
		conn.Close()
	}
	c.wg.Wait()
}
