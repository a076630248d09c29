package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"warren/mesh/api"
	"warren/packaging"
	"warren/tunnel"
)

// surroundings are what this program runs in, as far as hints depend on it: on a host and in each kind of container something else is to
// be typed.
type surroundings struct {
	root   string // "/", another directory in tests
	env    func(string) string
	open   func(path string) error // opens the TUN device, and closes it
	euid   int
	sudo   bool // there is one to be typed
	booted bool // a service manager runs here
}

func newSurroundings() *surroundings {
	_, noSudo := exec.LookPath("sudo")
	_, noManager := packaging.Detect()
	return &surroundings{root: "/", env: os.Getenv, open: openDevice, euid: os.Geteuid(), sudo: noSudo == nil, booted: noManager == nil}
}

func openDevice(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return file.Close()
}

// A container is the kind of what this program runs in; none on a machine of its own.
type container string

const (
	noContainer    container = ""
	inKubernetes   container = "kubernetes"
	inDocker       container = "docker"
	inPodman       container = "podman"
	inNspawn       container = "systemd-nspawn"
	inLXC          container = "lxc"
	inOpenVZ       container = "openvz"
	otherContainer container = "container"
)

// called are the words by which containers are told in files, in the order in which they are looked for: within Kubernetes the words of
// what it uses are found as well.
var called = []struct {
	word string
	kind container
}{
	{"kube", inKubernetes}, {"libpod", inPodman}, {"podman", inPodman}, {"docker", inDocker}, {"systemd-nspawn", inNspawn}, {"lxc", inLXC}, {"lxd", inLXC}, {"incus", inLXC},
	{"openvz", inOpenVZ}, {"containerd", otherContainer}, {"crio", otherContainer}, {"oci", otherContainer},
}

func kindIn(text string) container {
	for _, c := range called {
		if strings.Contains(text, c.word) {
			return c.kind
		}
	}
	return noContainer
}

func (s *surroundings) path(name string) string { return filepath.Join(s.root, name) }

func (s *surroundings) there(name string) bool {
	_, err := os.Stat(s.path(name))
	return err == nil
}

func (s *surroundings) read(name string) string {
	raw, _ := os.ReadFile(s.path(name))
	return string(raw)
}

// container looks in what. Each manager leaves its own mark; systemd's is /run/systemd/container (its CONTAINER_INTERFACE document), and
// the first process has the word in its environment, which only root may read.
func (s *surroundings) container() container {
	if s.env("KUBERNETES_SERVICE_HOST") != "" || s.there("run/secrets/kubernetes.io") || s.there("var/run/secrets/kubernetes.io") {
		return inKubernetes
	}
	word := strings.TrimSpace(s.read("run/systemd/container"))
	if word == "" {
		word = s.env("container")
	}
	if word == "" {
		for _, assignment := range strings.Split(s.read("proc/1/environ"), "\x00") {
			if value, ok := strings.CutPrefix(assignment, "container="); ok {
				word = value
			}
		}
	}
	if word != "" {
		if kind := kindIn(word); kind != noContainer && kind != otherContainer {
			return kind
		}
	}
	switch {
	case s.there("run/.containerenv"):
		return inPodman
	case s.there(".dockerenv"):
		return inDocker
	case s.there("dev/lxd/sock"), s.there("dev/incus/sock"), s.there("dev/.lxc"):
		return inLXC
	case s.there("proc/vz") && !s.there("proc/bc"):
		return inOpenVZ
	}
	if kind := kindIn(s.read("proc/1/cgroup")); kind != noContainer {
		return kind
	}
	if word != "" {
		return otherContainer
	}
	return noContainer
}

// admin reports whether this process has CAP_NET_ADMIN, bit 12 of the line that proc(5) describes; where it cannot be read, that is believed.
func (s *surroundings) admin() bool {
	for line := range strings.Lines(s.read("proc/self/status")) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return err != nil || bits&(1<<12) != 0
		}
	}
	return true
}

// tunNumber is that of /dev/net/tun: major 10, minor 200 (Documentation/admin-guide/devices.txt of Linux).
const tunNumber = 10<<8 | 200

const tunPath = "dev/net/tun"

// device says what is wrong with the TUN device; "" for nothing. kind is what helps against it.
func (s *surroundings) device() (wrong string, kind remedy) {
	info, err := os.Lstat(s.path(tunPath))
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(s.path(tunPath))
	}
	if err != nil {
		return "/dev/net/tun is not there", makeDevice
	}
	is, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case info.IsDir():
		return "/dev/net/tun is a directory, not the TUN device", replaceDevice
	case info.Mode()&fs.ModeCharDevice == 0:
		return "/dev/net/tun is a file, not the TUN device", replaceDevice
	case is != nil && is.Rdev != tunNumber:
		return "/dev/net/tun is another device than the TUN device, which has the number 10:200", replaceDevice
	}
	switch err := s.open("/" + tunPath); {
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO), errors.Is(err, fs.ErrNotExist):
		return "the kernel has no TUN driver", loadDriver
	case errors.Is(err, fs.ErrPermission):
		return "/dev/net/tun may not be opened here", allowDevice
	}
	return "", 0
}

// remedy is what helps against an interface that cannot be made.
type remedy int

const (
	makeDevice remedy = iota + 1
	replaceDevice
	allowDevice
	loadDriver
	giveRight
)

// onHost is what is typed where the machine is one's own.
var onHost = map[remedy]string{
	makeDevice:    "sudo modprobe tun; if that is not enough: sudo mkdir -p /dev/net && sudo mknod -m 666 /dev/net/tun c 10 200",
	replaceDevice: "sudo rm -r /dev/net/tun && sudo mknod -m 666 /dev/net/tun c 10 200",
	allowDevice:   "sudo chmod 666 /dev/net/tun; if that is not enough, the file system is mounted nodev, or the service has no DeviceAllow=/dev/net/tun rw",
	loadDriver:    "sudo modprobe tun; after an update of the kernel: sudo reboot",
	giveRight:     "the service or shell has dropped it: in a unit, CapabilityBoundingSet=CAP_NET_ADMIN",
}

// inContainer is what is said where the container is started: it gives device and right at once.
var inContainer = map[container]string{
	inDocker: "start the container with: docker run --cap-add NET_ADMIN --device /dev/net/tun ...; in compose: cap_add: [NET_ADMIN] and devices: [/dev/net/tun]",
	inPodman: "start the container with: podman run --cap-add NET_ADMIN --device /dev/net/tun ...",
	inKubernetes: "in the pod's spec: securityContext: {capabilities: {add: [NET_ADMIN]}}, and /dev/net/tun mounted as a hostPath volume of type CharDevice; " +
		"where devices are not allowed that way: privileged: true",
	inNspawn: "start the container with: systemd-nspawn --bind=/dev/net/tun --capability=CAP_NET_ADMIN --property=DeviceAllow='/dev/net/tun rw' ...; " +
		"in its .nspawn file: Capability=CAP_NET_ADMIN and Bind=/dev/net/tun",
	inLXC: "on the host: incus config device add NAME tun unix-char path=/dev/net/tun (lxc in the place of incus for LXD); " +
		"for LXC and Proxmox, in the container's config: lxc.cgroup2.devices.allow = c 10:200 rwm, and lxc.mount.entry = /dev/net/tun dev/net/tun none bind,create=file",
	inOpenVZ:       "on the host: vzctl set CTID --devnodes net/tun:rw --capability net_admin:on --save",
	otherContainer: "start the container with the capability CAP_NET_ADMIN and the device /dev/net/tun",
}

// whyNoInterface says what keeps this program from making its interface, and what to type here; "" when nothing is seen.
func (s *surroundings) whyNoInterface() string {
	if !s.there("proc/self/status") {
		return "" // no Linux: there is no such device, and root may do it
	}
	where := s.container()
	wrong, what := s.device()
	right := s.admin()
	if right && wrong == "" {
		return ""
	}
	if !right && wrong == "" {
		what, wrong = giveRight, "CAP_NET_ADMIN is missing"
	} else if !right {
		wrong += ", and CAP_NET_ADMIN is missing"
	}
	switch {
	case s.euid != 0 && where == noContainer:
		return wrong + ": try again with sudo"
	case what == loadDriver && where != noContainer:
		return wrong + ": on the host, say: sudo modprobe tun"
	case where != noContainer:
		return wrong + ": " + inContainer[where]
	case !right && what != giveRight:
		return wrong + ": " + onHost[what] + "; and " + onHost[giveRight]
	}
	return wrong + ": " + onHost[what]
}

// runIt is how an agent is started where no service manager does it.
func (s *surroundings) runIt(flag string) string {
	command := "warren agent" + flag
	switch s.container() {
	case inDocker:
		return "make it what the container runs: docker run --cap-add NET_ADMIN --device /dev/net/tun -v warren:/var/lib/warren IMAGE " + command + "; or now: " + command
	case inPodman:
		return "make it what the container runs: podman run --cap-add NET_ADMIN --device /dev/net/tun -v warren:/var/lib/warren IMAGE " + command + "; or now: " + command
	case inKubernetes:
		return `make it what the pod runs: command: [` + strings.Join(strings.Fields(command), ", ") + `], with a volume for /var/lib/warren; or now: ` + command
	case inNspawn:
		return "start the container with --boot, so that systemd runs in it; or now: sudo " + command
	case noContainer:
		return "run the agent yourself, or by the init of this machine: sudo " + command
	}
	return "make it what the container runs, with a volume for /var/lib/warren: " + command + "; or now: " + command
}

// hint is what to do about a failure where that depends on the surroundings; "" else.
func (s *surroundings) hint(err error) string {
	switch {
	case s == nil:
		return ""
	case errors.Is(err, packaging.ErrNone):
		return s.runIt("")
	case errors.Is(err, api.ErrNotRunning) && !s.booted:
		return s.runIt("")
	case errors.Is(err, tunnel.ErrInterface):
		why := s.whyNoInterface()
		if why == "" && errors.Is(err, fs.ErrPermission) {
			why = s.whyNotThisNetwork()
		}
		return why
	}
	return ""
}

// whyNotThisNetwork says why root may not make an interface here though it has the device and the right; "" when nothing is seen. The right of
// root in a user namespace ends at the network that belongs to another one (user_namespaces(7)).
func (s *surroundings) whyNotThisNetwork() string {
	ids := strings.Fields(s.read("proc/self/uid_map"))
	if len(ids) == 0 || strings.Join(ids, " ") == "0 0 4294967295" {
		return ""
	}
	const wrong = "CAP_NET_ADMIN is that of a user namespace, and this network belongs to another one: "
	switch where := s.container(); where {
	case noContainer:
		return wrong + "run the agent outside of the user namespace, or give it a network of its own, as unshare --user --map-root-user --net does"
	case inPodman, inDocker:
		return wrong + "start the container without --network=host, or not rootless"
	}
	return wrong + "give the container a network of its own, or run it privileged"
}

// withoutSudo is a writer for machines on which everybody is root, as containers are, and no sudo can be typed.
type withoutSudo struct{ io.Writer }

func (w withoutSudo) Write(p []byte) (int, error) {
	if _, err := w.Writer.Write(bytes.ReplaceAll(p, []byte("sudo "), nil)); err != nil {
		return 0, err
	}
	return len(p), nil
}
