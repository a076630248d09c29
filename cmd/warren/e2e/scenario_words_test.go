//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestWords: what a person or a script does with the program by hand: outputs that take nothing, tokens out of files and mails, words
// that other programs have, and containers that lack what an agent needs.
func TestWords(t *testing.T) {
	t.Parallel()
	bed := bedWith(t, buildPlain, 90*time.Second) // it starts fifty times
	founder, joiner := bed.node("founder", nil), bed.node("joiner", nil)
	bed.must(Found(bed.ctx, "home", founder))
	shell := func(n *Node, script string) (string, int) {
		t.Helper()
		out, err := n.Host.Run(bed.ctx, "sh", "-c", `W=$1; `+script, "sh", n.binary)
		return out, ExitCode(err)
	}

	bed.step("outputs that take nothing")
	for _, c := range []struct {
		script string
		code   int
		says   string
	}{
		{"$W invite >/dev/full", 1, "could not write to standard output: no space left on device\nhint: nobody has the token now, so its invite is withdrawn"},
		{"$W invite --json >/dev/full", 1, "its invite is withdrawn"},
		{"$W invite >/dev/null", 1, "no invite was made"}, {"$W invite >&-", 1, "no invite was made"},
		{"$W status >/dev/full", 1, "no space left on device"}, {"$W status --json >/dev/full", 1, "no space left on device"}, {"$W ip >/dev/full", 1, "no space left on device"},
		{"$W --help >/dev/full", 1, "no space left on device"}, {"$W version >/dev/full", 1, "no space left on device"},
		// The pipe has no reader before the first word is written.
		{"{ sleep 0.2; $W status; echo $? >&2; } | true", 0, "141\n"}, {"{ sleep 0.2; $W completion bash; echo $? >&2; } | true", 0, "141\n"},
		{"{ $W status --watch; echo $? >&2; } | head -n 1 >/dev/null", 0, "141\n"},
		{"$W invite list --json", 0, `"invites": []`},
		{"$W --version", 0, "warren "}, {"$W -v", 0, "warren "}, {"$W serve", 2, "did you mean: warren agent"}, {"$W leav", 2, "see: warren --help"}, {"$W help nothing", 2, "unknown command"},
		{"$W ip -4; $W whois $($W ip -6); $W peers founder; $W ping founder -c 1 --json", 1, "name       founder (this node)"},
	} {
		if out, code := shell(founder, c.script); code != c.code || !strings.Contains(out, c.says) || strings.Contains(out, "warren1") && c.code != 0 {
			t.Errorf("%s: got %d and %s, want %d and %q", c.script, code, out, c.code, c.says)
		}
	}

	bed.step("a token in a file, as a Windows shell writes it")
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	bed.must(os.WriteFile(founder.Host.Dir()+"/lib/invite.txt", []byte("Here it is: TOKEN="+token+"\r\n"), 0o600))
	if out, code := shell(founder, "$W join /var/lib/none.txt --no-start"); code != 2 || !strings.Contains(out, "there is no file") {
		t.Errorf("join of no file: got %d and %s", code, out)
	}
	raw, err := os.ReadFile(founder.Host.Dir() + "/lib/invite.txt")
	bed.must(err)
	wide := []byte{0xff, 0xfe}
	for _, c := range raw {
		wide = append(wide, c, 0)
	}
	bed.must(os.WriteFile(joiner.Host.Dir()+"/lib/invite.txt", wide, 0o600))
	if out, code := shell(joiner, "$W join home --no-start"); code != 1 || !strings.Contains(out, "the name of a mesh") {
		t.Errorf("join of a mesh's name: got %d and %s", code, out)
	}
	out, err := joiner.Warren(bed.ctx, "", "join", "/var/lib/invite.txt", "--no-start", "--name", "joiner", "--json")
	bed.must(err)
	if !strings.Contains(out, `"mesh": "home"`) || !strings.HasPrefix(out, "{") {
		t.Errorf("join --json: got %s", out)
	}
	joiner.Mesh = "home"

	bed.step("containers")
	for _, c := range []struct{ before, says string }{
		{"setpriv --bounding-set -net_admin --inh-caps -net_admin", "CAP_NET_ADMIN is missing"},
		{"unshare -m sh -c 'mount -t tmpfs none /dev/net; exec \"$@\"' sh", "/dev/net/tun is not there"},
		{"unshare -m sh -c 'mount -t tmpfs none /dev/net; touch /dev/net/tun; exec \"$@\"' sh", "/dev/net/tun is a file, not the TUN device"},
		{"unshare -m sh -c 'mount -t tmpfs none /dev/net; mknod /dev/net/tun c 1 3; exec \"$@\"' sh", "another device than the TUN device"},
		{"container=podman unshare -m sh -c 'mount -t tmpfs none /dev/net; exec \"$@\"' sh", "podman run --cap-add NET_ADMIN --device /dev/net/tun"},
	} {
		if out, code := shell(joiner, c.before+" $W agent"); code != 1 || !strings.Contains(out, "hint: ") || !strings.Contains(out, c.says) {
			t.Errorf("%s: got %d and %s, want 1 and %q", c.before, code, out, c.says)
		}
	}
	bed.must(joiner.Start(bed.ctx))
	bed.meshed(founder, joiner)
}
