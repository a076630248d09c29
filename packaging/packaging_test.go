package packaging

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestExposure holds what the unit promises: no more exposure than 3.0 in systemd's own count.
func TestExposure(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("systemd-analyze is not installed: %v", err)
	}
	out, err := exec.Command(tool, "security", "--offline=true", "--no-pager", "--threshold=30", "systemd/warren@.service").CombinedOutput()
	if err != nil {
		t.Errorf("exposure above 3.0: %v\n%s", err, out)
	}
}

func TestUnitIsValid(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("systemd-analyze is not installed: %v", err)
	}
	// A program that exists everywhere stands in for ours; it is the rest that is verified.
	path := filepath.Join(t.TempDir(), "warren@.service")
	if err := os.WriteFile(path, []byte(strings.Replace(systemdUnit, Binary, "/bin/true", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "verify", "--recursive-errors=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

func TestPlistIsXML(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(launchdPlist))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(launchdPlist, "<string>MESH</string>"); got != 1 {
		t.Errorf("places for the mesh as an argument: got %d, want 1", got)
	}
	if !strings.Contains(systemdUnit, "ExecStart="+Binary+" ") || !strings.Contains(launchdPlist, "<string>"+Binary+"</string>") {
		t.Errorf("service files do not name %s", Binary)
	}
}

func TestCheckBinary(t *testing.T) {
	for path, fine := range map[string]bool{
		Binary: true, "/usr/bin/warren": true, "/opt/warren/bin/warren": true,
		"/home/me/warren": false, "/root/bin/warren": false, "/tmp/go-build1/warren": false, "/opt/my programs/warren": false, "/opt/%h/warren": false,
	} {
		if err := CheckBinary(path); (err == nil) != fine {
			t.Errorf("%s: got %v, want fine = %v", path, err, fine)
		}
	}
}

// entry is a file or a directory of somebody.
type entry struct {
	os.FileInfo
	mode     os.FileMode
	uid, gid uint32
}

func (e entry) Mode() os.FileMode { return e.mode }
func (e entry) Sys() any          { return &syscall.Stat_t{Uid: e.uid, Gid: e.gid} }

// A service is no way for others to become root.
func TestCheckOwner(t *testing.T) {
	const path = "/srv/x/warren"
	good := map[string]entry{"/": {mode: 0o755}, "/srv": {mode: 0o755}, "/srv/x": {mode: 0o755}, path: {mode: 0o755}}
	for _, tt := range []struct {
		name string
		at   string
		is   entry
		fine bool
	}{
		{"all is root's", path, entry{mode: 0o755}, true},
		{"root's group may write", "/srv/x", entry{mode: 0o775}, true},
		{"another group may read", path, entry{mode: 0o750, gid: 50}, true},
		{"the program is another's", path, entry{mode: 0o755, uid: 1000}, false},
		{"everybody may write the program", path, entry{mode: 0o757}, false},
		{"another group may write the program", path, entry{mode: 0o775, gid: 50}, false},
		{"its directory is another's", "/srv/x", entry{mode: 0o755, uid: 1000}, false},
		{"everybody may write its directory", "/srv/x", entry{mode: 0o777 | os.ModeSticky}, false},
		{"another group may write a directory above", "/srv", entry{mode: 0o775, gid: 100}, false},
		{"a directory above is another's", "/", entry{mode: 0o755, uid: 65534}, false},
	} {
		err := checkOwner(path, func(at string) (os.FileInfo, error) {
			if at == tt.at {
				return tt.is, nil
			}
			return good[at], nil
		})
		if (err == nil) != tt.fine || err != nil && (!errors.Is(err, ErrExposed) || !strings.HasPrefix(err.Error(), tt.at+" ") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: got %v, want it to be fine: %v", tt.name, err, tt.fine)
		}
	}
	if err := CheckOwner(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: got %v, want os.ErrNotExist", err)
	}
	file := filepath.Join(t.TempDir(), "warren") // below a directory where everybody may make files
	if err := os.WriteFile(file, nil, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := CheckOwner(file); !errors.Is(err, ErrExposed) {
		t.Errorf("a program that everybody may write: got %v, want ErrExposed", err)
	}
}

// fakeManager stands in for systemctl and launchctl: it keeps what it is told and has one service of one mesh.
type fakeManager struct {
	calls   []string
	loaded  bool
	running bool
	wants   string // link that enable makes, in the directory of the test
}

func (m *fakeManager) run(_ context.Context, name string, args ...string) (string, error) {
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--quiet" || strings.HasPrefix(a, "--property") })
	m.calls = append(m.calls, name+" "+strings.Join(args, " "))
	switch args[0] {
	case "show":
		load, file, active := "not-found", "", "inactive"
		if m.loaded {
			load = "loaded"
		}
		if exists(m.wants) {
			file = "enabled"
		}
		if m.running {
			active = "active"
		}
		return "LoadState=" + load + "\nUnitFileState=" + file + "\nActiveState=" + active + "\nSubState=x\nResult=success\n", nil
	case "daemon-reload":
		m.loaded = !m.loaded
	case "enable":
		if m.wants != "" {
			if err := os.MkdirAll(filepath.Dir(m.wants), 0o755); err != nil {
				return "", err
			}
			return "", os.WriteFile(m.wants, nil, 0o644)
		}
	case "disable":
		m.running = false
		return "", os.Remove(m.wants)
	case "start", "kickstart":
		m.running = true
	case "stop":
		m.running = false
	case "bootstrap":
		m.loaded, m.running = true, true
	case "bootout":
		m.loaded, m.running = false, false
	case "print":
		if !m.loaded {
			return "", errors.New("launchctl print: Could not find service")
		}
		return "system/warren.home = {\n\tstate = running\n}", nil
	}
	return "", nil
}

func TestSystemd(t *testing.T) {
	root, ctx := t.TempDir(), t.Context()
	m := &fakeManager{wants: filepath.Join(root, "etc/systemd/system/multi-user.target.wants/warren@home.service")}
	s := &systemd{root: root, run: m.run}
	if err := s.Install(ctx, "home", "/opt/warren"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.unitFile())
	if err != nil || !strings.Contains(string(text), "ExecStart=/opt/warren agent --mesh %i\n") {
		t.Errorf("unit: got %v, %s", err, text)
	}
	if err := s.Start(ctx, "home", false); err != nil {
		t.Fatal(err)
	}
	got, err := s.Status(ctx, "home")
	if want := (State{Installed: true, Enabled: true, Running: true, Detail: "active (x)"}); err != nil || got != want {
		t.Errorf("status: got %+v, %v, want %+v", got, err, want)
	}
	if err := s.Uninstall(ctx, "home"); err != nil {
		t.Fatal(err)
	}
	if exists(s.unitFile()) {
		t.Errorf("unit is still there after the last mesh has gone")
	}
	if err := s.Uninstall(ctx, "home"); err != nil {
		t.Errorf("second uninstall: got %v, want nil", err)
	}
	want := []string{
		"systemd-sysusers --inline g warren -", "systemctl daemon-reload", "systemctl enable warren@home.service",
		"systemctl start warren@home.service", "systemctl show warren@home.service",
		"systemctl show warren@home.service", "systemctl disable --now warren@home.service", "systemctl reset-failed warren@home.service", "systemctl daemon-reload",
		"systemctl show warren@home.service",
	}
	if !slices.Equal(m.calls, want) {
		t.Errorf("calls:\ngot  %q\nwant %q", m.calls, want)
	}
}

func TestSystemdKeepsForeignUnit(t *testing.T) {
	root := t.TempDir()
	if err := write(filepath.Join(root, "usr/lib/systemd/system/warren@.service"), []byte("[Unit]\n")); err != nil {
		t.Fatal(err)
	}
	m := &fakeManager{wants: filepath.Join(root, "wants")}
	s := &systemd{root: root, run: m.run}
	if err := s.Install(t.Context(), "home", Binary); err != nil {
		t.Fatal(err)
	}
	if exists(s.unitFile()) {
		t.Errorf("unit written over that of the package")
	}
}

func TestLaunchd(t *testing.T) {
	root, ctx := t.TempDir(), t.Context()
	m := &fakeManager{}
	l := &launchd{root: root, run: m.run}
	for _, step := range []func() error{
		func() error { return l.Install(ctx, "home", "/opt/warren") },
		func() error { return l.Start(ctx, "home", false) },
		func() error { return l.Start(ctx, "home", false) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(l.plist("home"))
	if err != nil || strings.Contains(string(text), "MESH") || !strings.Contains(string(text), "<string>/opt/warren</string>") {
		t.Errorf("plist: got %v, %s", err, text)
	}
	got, err := l.Status(ctx, "home")
	if want := (State{Installed: true, Enabled: true, Running: true, Detail: "running"}); err != nil || got != want {
		t.Errorf("status: got %+v, %v, want %+v", got, err, want)
	}
	if err := l.Uninstall(ctx, "home"); err != nil {
		t.Fatal(err)
	}
	got, err = l.Status(ctx, "home")
	if want := (State{Detail: notLoaded}); err != nil || got != want {
		t.Errorf("status after uninstall: got %+v, %v, want %+v", got, err, want)
	}
}

func TestRunReportsWords(t *testing.T) {
	_, err := run(t.Context(), "sh", "-c", "echo 'Access denied' >&2; echo more >&2; exit 1")
	if err == nil || err.Error() != "sh -c: Access denied" {
		t.Errorf("got %v, want the first line of standard error", err)
	}
}
