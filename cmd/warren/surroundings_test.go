package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"warren/mesh/api"
	"warren/packaging"
	"warren/tunnel"
)

const (
	allRights = "Name:\twarren\nCapEff:\t000001ffffffffff\n"
	noRights  = "Name:\twarren\nCapEff:\t00000000a80425fb\n" // docker's own set
)

// setting is a machine or a container made of files, and of what opening the device says.
type setting struct {
	files map[string]string
	env   map[string]string
	tun   string // "", "file", "dir", or what it is a link to
	open  error
	euid  int
}

func (p setting) in(t *testing.T) *surroundings {
	root := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, given := p.files["proc/self/status"]; !given {
		put("proc/self/status", allRights)
	}
	for name, text := range p.files {
		put(name, text)
	}
	if err := os.MkdirAll(filepath.Join(root, "dev/net"), 0o755); err != nil {
		t.Fatal(err)
	}
	tun := filepath.Join(root, tunPath)
	var err error
	switch p.tun {
	case "":
	case "file":
		put(tunPath, "")
	case "dir":
		err = os.Mkdir(tun, 0o755)
	default:
		err = os.Symlink(p.tun, tun)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &surroundings{root: root, env: func(name string) string { return p.env[name] }, open: func(string) error { return p.open }, euid: p.euid, sudo: true}
}

// TestWhyNoInterface: each thing that keeps an interface from being made is told, with what is typed in each kind of container.
func TestWhyNoInterface(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TUN device to compare with: %v", err)
	}
	kinds := map[string]struct {
		setting
		want string
	}{
		"docker":               {setting{files: map[string]string{".dockerenv": ""}}, "docker run --cap-add NET_ADMIN --device /dev/net/tun"},
		"docker, by cgroup":    {setting{files: map[string]string{"proc/1/cgroup": "0::/system.slice/docker-4f.scope\n"}}, "docker run"},
		"podman":               {setting{files: map[string]string{"run/.containerenv": "engine=\"podman-4.3.1\"\n"}}, "podman run --cap-add NET_ADMIN --device /dev/net/tun"},
		"podman, by PID 1":     {setting{files: map[string]string{"proc/1/environ": "PATH=/bin\x00container=podman\x00"}}, "podman run"},
		"systemd-nspawn":       {setting{files: map[string]string{"run/systemd/container": "systemd-nspawn\n"}}, "systemd-nspawn --bind=/dev/net/tun --capability=CAP_NET_ADMIN"},
		"nspawn, by its word":  {setting{env: map[string]string{"container": "systemd-nspawn"}}, "systemd-nspawn --bind"},
		"LXC":                  {setting{files: map[string]string{"proc/1/environ": "container=lxc\x00"}}, "lxc.mount.entry = /dev/net/tun"},
		"Incus":                {setting{files: map[string]string{"dev/incus/sock": ""}}, "incus config device add NAME tun unix-char path=/dev/net/tun"},
		"Kubernetes":           {setting{env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, files: map[string]string{".dockerenv": ""}}, "securityContext"},
		"Kubernetes, a cgroup": {setting{files: map[string]string{"proc/1/cgroup": "0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope\n"}}, "securityContext"},
		"OpenVZ":               {setting{files: map[string]string{"proc/vz/veinfo": ""}}, "vzctl set CTID --devnodes net/tun:rw"},
		"another container":    {setting{env: map[string]string{"container": "rkt"}}, "start the container with the capability"},
		"a host":               {setting{}, "mknod"},
	}
	wrongs := map[string]struct {
		setting
		want string
		host string // what helps on a host
	}{
		"no device":     {setting{}, "/dev/net/tun is not there", "sudo modprobe tun; if that is not enough: sudo mkdir -p /dev/net && sudo mknod -m 666 /dev/net/tun c 10 200"},
		"a file":        {setting{tun: "file"}, "is a file, not the TUN device", "sudo rm -r /dev/net/tun && sudo mknod"},
		"a directory":   {setting{tun: "dir"}, "is a directory, not the TUN device", "sudo rm -r /dev/net/tun && sudo mknod"},
		"another":       {setting{tun: "/dev/null"}, "another device than the TUN device", "sudo rm -r /dev/net/tun && sudo mknod"},
		"no driver":     {setting{tun: "/dev/net/tun", open: syscall.ENODEV}, "no TUN driver", "sudo modprobe tun"},
		"not allowed":   {setting{tun: "/dev/net/tun", open: syscall.EPERM}, "may not be opened", "sudo chmod 666 /dev/net/tun"},
		"no right":      {setting{tun: "/dev/net/tun", files: map[string]string{"proc/self/status": noRights}}, "CAP_NET_ADMIN is missing: ", "CapabilityBoundingSet=CAP_NET_ADMIN"},
		"neither":       {setting{files: map[string]string{"proc/self/status": noRights}}, "/dev/net/tun is not there, and CAP_NET_ADMIN is missing", "CapabilityBoundingSet=CAP_NET_ADMIN"},
		"nothing wrong": {setting{tun: "/dev/net/tun"}, "", ""},
	}
	for wrong, w := range wrongs {
		for kind, k := range kinds {
			at := setting{files: map[string]string{}, env: k.env, tun: w.tun, open: w.open}
			for _, files := range []map[string]string{k.files, w.files} {
				for name, text := range files {
					at.files[name] = text
				}
			}
			got := at.in(t).whyNoInterface()
			help := k.want
			switch {
			case kind == "a host":
				help = w.host
			case wrong == "no driver":
				help = "on the host, say: sudo modprobe tun"
			case wrong == "nothing wrong":
				help = ""
			}
			if !strings.Contains(got, w.want) || !strings.Contains(got, help) || (got == "") != (w.want == "") || strings.Contains(got, "\n") {
				t.Errorf("%s in %s: got %q, want %q and %q in it", wrong, kind, got, w.want, help)
			}
		}
	}
	if got := (setting{euid: 1000, files: map[string]string{"proc/self/status": noRights}, tun: "/dev/net/tun"}).in(t).whyNoInterface(); got != "CAP_NET_ADMIN is missing: try again with sudo" {
		t.Errorf("a user of a host: got %q", got)
	}
}

// Where no service manager runs, no hint leads to one, and where there is no sudo none is typed.
func TestHintsFitTheirPlace(t *testing.T) {
	docker := setting{files: map[string]string{".dockerenv": ""}}.in(t)
	host := setting{}.in(t)
	// root is root of a user namespace, with these files as well.
	root := func(files map[string]string) *surroundings {
		at := setting{files: map[string]string{"proc/self/uid_map": "         0       1000          1\n"}, tun: "/dev/net/tun"}
		maps.Copy(at.files, files)
		return at.in(t)
	}
	notAllowed := fmt.Errorf("%w warren0: %w", tunnel.ErrInterface, syscall.EPERM)
	for _, c := range []struct {
		here   *surroundings
		booted bool
		err    error
		want   string
	}{
		{docker, false, packaging.ErrNone, "docker run"}, {docker, false, fmt.Errorf("%w (x)", api.ErrNotRunning), "or now: warren agent"}, {host, false, packaging.ErrNone, "sudo warren agent"},
		{host, false, api.ErrNotRunning, "run the agent yourself"}, {host, true, api.ErrNotRunning, "start it with: sudo warren up"}, {host, true, api.ErrNoAccess, "sudo usermod"},
		{docker, false, fmt.Errorf("%w warren0: no", tunnel.ErrInterface), "/dev/net/tun is not there"},
		{root(nil), true, notAllowed, "this network belongs to another one: run the agent outside of the user namespace"},
		{root(map[string]string{"run/.containerenv": ""}), true, notAllowed, "without --network=host"},
		{root(map[string]string{"dev/incus/sock": ""}), true, notAllowed, "a network of its own"},
		{root(map[string]string{"proc/self/uid_map": "         0          0 4294967295\n"}), true, notAllowed, "try again with sudo"},
		{root(nil), true, fmt.Errorf("%w warren0: %w", tunnel.ErrInterface, syscall.EBUSY), "warren0"},
	} {
		c.here.booted = c.booted
		var said bytes.Buffer
		(&console{err: &said, here: c.here}).report(c.err)
		if !strings.Contains(said.String(), c.want) {
			t.Errorf("%v: got %q, want %q", c.err, said.String(), c.want)
		}
	}
	w := newWorld(t)
	w.noInit = true
	var out, said bytes.Buffer
	docker.sudo = false
	code := w.with(&console{in: strings.NewReader(""), out: &out, err: &said, here: docker}).run(t.Context(), []string{"create", "home", "--name", "alpha"})
	if code != 0 || strings.Contains(out.String()+said.String(), "sudo") || !strings.Contains(out.String(), "docker run --cap-add NET_ADMIN") || !strings.Contains(out.String(), "with: warren invite\n") {
		t.Errorf("create in a container: got %d, %s%s", code, out.String(), said.String())
	}
	out.Reset()
	code = w.with(&console{in: strings.NewReader(""), out: &out, err: io.Discard, here: docker}).run(t.Context(), []string{"config", "show", "--json"})
	if code != 0 || !strings.HasPrefix(out.String(), "{") {
		t.Errorf("JSON in a container: got %d, %s", code, out.String())
	}
}
