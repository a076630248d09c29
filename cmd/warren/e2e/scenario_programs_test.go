//go:build linux

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"warren/mesh/api"
	"warren/nat/natlab"
)

//go:embed testdata/names.c
var namesSource string

// missingTool says what a test lacks: in CI it fails, elsewhere it is skipped with the reason.
func missingTool(t *testing.T, tool, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing; install %s", tool, pkg)
	}
	t.Skipf("%s is missing; install %s", tool, pkg)
}

// muslNames builds a program that asks musl's resolver.
func muslNames(t *testing.T) string {
	t.Helper()
	missingTool(t, "musl-gcc", "musl-tools")
	dir := t.TempDir()
	source, program := filepath.Join(dir, "names.c"), filepath.Join(dir, "names")
	if err := os.WriteFile(source, []byte(namesSource), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("musl-gcc", "-static", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("musl-gcc: %v: %s", err, out)
	}
	return program
}

// serveSSH takes one command of each who comes with any key, and answers with it.
func serveSSH(t *testing.T, l net.Listener) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(signer)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerSSH(c, config)
		}
	}()
}

func answerSSH(c net.Conn, config *ssh.ServerConfig) {
	defer c.Close()
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for open := range channels {
		channel, asked, err := open.Accept()
		if err != nil {
			return
		}
		for r := range asked {
			_ = r.Reply(r.Type == "exec", nil)
			if r.Type == "exec" && len(r.Payload) > 4 {
				fmt.Fprintf(channel, "done: %s\n", r.Payload[4:])
				_, _ = channel.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
				channel.Close()
			}
		}
	}
}

// TestNamesForPrograms has programs of all kinds reach a member by name: curl and ssh with glibc, and musl's resolver, while a resolver on the LAN knows
// nothing of the mesh, and while it answers for the mesh's names itself. A machine whose files cannot be written says so.
func TestNamesForPrograms(t *testing.T) {
	t.Parallel()
	for tool, pkg := range map[string]string{"curl": "curl", "ssh": "openssh-client", "ssh-keygen": "openssh-client"} {
		missingTool(t, tool, pkg)
	}
	musl := muslNames(t)
	bed := newBed(t, 2*time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	sealed := bed.node("sealed", nil)
	sealed.Host.SealHosts()
	lan := founder.Host.Resolver(netip.Prefix{})
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.meshed(founder, a)
	bed.named(founder, "hosts")
	theirs := bed.named(a, "hosts").Self.Addresses
	var web, shell net.Listener
	bed.must(a.Host.Do(func() (err error) {
		if web, err = net.Listen("tcp", ":8080"); err != nil {
			return err
		}
		shell, err = net.Listen("tcp", ":2222")
		return err
	}))
	defer web.Close()
	defer shell.Close()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "this is ", r.Host) })}
	go server.Serve(web)
	defer server.Close()
	serveSSH(t, shell)
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	reached := func(when string) {
		t.Helper()
		for _, name := range []string{"a.home.internal", "a"} {
			for _, family := range []string{"-4", "-6"} {
				out, err := founder.Host.Run(bed.ctx, "curl", "-sS", "--max-time", "20", family, "http://"+name+":8080/")
				if err != nil || out != "this is "+name+":8080" {
					t.Errorf("%s: curl %s %s: got %q, %v", when, family, name, out, err)
				}
			}
			out, err := founder.Host.Run(bed.ctx, "ssh", "-F", "none", "-i", key, "-p", "2222", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20",
				"root@"+name, "uptime")
			if err != nil || !strings.Contains(out, "done: uptime") {
				t.Errorf("%s: ssh %s: got %q, %v", when, name, out, err)
			}
			out, err = founder.Host.Run(bed.ctx, musl, name)
			if err != nil || !strings.Contains(out, theirs[0].String()) || !strings.Contains(out, theirs[1].String()) || !strings.Contains(out, "a.home.internal") {
				t.Errorf("%s: musl %s: got %q, %v", when, name, out, err)
			}
		}
	}
	reached("the LAN's resolver knows nothing")
	lan.Set("a.home.internal", netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("2001:db8:66::66"))
	lan.Set("a", netip.MustParseAddr("192.0.2.66"))
	lan.Set("nobody.home.internal", netip.MustParseAddr("192.0.2.66"))
	reached("the LAN's resolver answers for the mesh")

	bed.step("a root that is read-only")
	bed.must(Admit(bed.ctx, founder, sealed))
	s, err := sealed.Wait(bed.ctx, "it says that names cannot be written", func(s api.Status) bool {
		return s.Names != nil && len(s.Names.Served) == 2 && strings.Contains(s.Names.Why, "read-only")
	})
	bed.must(err)
	if s.Names.Using != "" || !strings.Contains(s.Names.Why, `names = "off"`) {
		t.Errorf("names: got %+v, want what to do", s.Names)
	}
	out, err := sealed.Warren(bed.ctx, "", "dns", "query", "a")
	bed.must(err)
	bed.said(sealed, "dns query a", out, []string{"a.home.internal A " + theirs[0].String(), "this machine's resolver says nothing", "read-only"})
	if got := bed.hostsFile(sealed); got != plainHosts {
		t.Errorf("its file: got\n%s", got)
	}
}
