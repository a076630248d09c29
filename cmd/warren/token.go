package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"warren/mesh/identity"
	"warren/mesh/place"
)

// maxTokenInput bounds the file in which a token is looked for: a mail with a picture in it. A larger one is refused and not cut.
const maxTokenInput = 4 << 20

// maxPasted bounds the lines of a token that a mail has wrapped.
const maxPasted = 16

const howToInvite = "make a token on a member with: sudo warren invite"

// token returns the token that is meant by the arguments: it is in them, in the file that they name, or on standard input, where a
// terminal does not show it. What is no token is told by its name.
func (c *console) token(args []string) (string, error) {
	recognise := c.recognise
	if recognise == nil {
		recognise = tokenIn
	}
	switch said := strings.Join(args, " "); {
	case said == "" || said == "-":
		return c.tokenAsked(recognise)
	default:
		token, err := recognise(said)
		if err == nil {
			return token, nil
		}
		text, found, fileErr := tokenFile(args)
		if fileErr != nil {
			return "", fileErr
		}
		if !found && len(args) > 1 {
			return "", &usageError{message: "join: " + err.Error(), hint: hintFor(err)}
		}
		if !found {
			return "", err
		}
		return c.tokenOf(text, recognise)
	}
}

// tokenAsked reads standard input.
func (c *console) tokenAsked(recognise func(string) (string, error)) (string, error) {
	if c.readSecret == nil {
		text, err := readToken("standard input", c.in)
		if err == nil && strings.TrimSpace(text) == "" {
			err = &usageError{message: "no token on standard input", hint: howToInvite}
		}
		if err != nil {
			return "", err
		}
		return c.tokenOf(text, recognise)
	}
	fmt.Fprint(c.err, "token (not shown): ")
	defer fmt.Fprintln(c.err)
	var text string
	for range maxPasted {
		line, err := c.readSecret()
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read token: %w", err)
		}
		text += line + "\n"
		token, wrong := recognise(text)
		// A mail may have wrapped it. The lines that are pasted with it are not left to the shell.
		if errors.Is(wrong, identity.ErrTokenTruncated) && line != "" && err == nil {
			continue
		}
		if wrong != nil && strings.TrimSpace(text) == "" {
			return "", &usageError{message: "no token was given", hint: howToInvite}
		}
		return token, wrong
	}
	return recognise(text)
}

// tokenOf finds the token in a text from elsewhere, and tells what else that says of it.
func (c *console) tokenOf(text string, recognise func(string) (string, error)) (string, error) {
	token, err := recognise(text)
	if err != nil {
		return "", err
	}
	if when := expiry.FindStringSubmatch(text); when != nil {
		if at, err := time.Parse(time.RFC3339, when[1]); err == nil && at.Before(time.Now()) {
			c.remark("by the clock of this machine this invite expired on %s; if nobody takes you in: %s", at.Local().Format("2006-01-02 15:04"), howToInvite)
		}
	}
	return token, nil
}

// expiry is what the JSON of an invite says of its end.
var expiry = regexp.MustCompile(`"expires"\s*:\s*"([^"]{10,40})"`)

// tokenFile reads the file that the arguments name, if they do.
func tokenFile(args []string) (text string, found bool, err error) {
	if len(args) != 1 {
		return "", false, nil
	}
	name := args[0]
	if at, err := url.Parse(name); err == nil && at.Scheme == "file" {
		name = at.Path
	}
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "@") {
		file, err = os.Open(name[1:])
	}
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && looksLikeFile(name):
		return "", false, &usageError{message: "there is no file " + name + ", and it is no token either", hint: howToInvite}
	case errors.Is(err, fs.ErrPermission):
		return "", false, fmt.Errorf("read token: %w", err)
	default:
		return "", false, nil // too long for a name, or a name that nobody has
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return "", false, &usageError{message: name + " is a directory, not a file with a token", hint: howToInvite}
	}
	text, err = readToken(name, file)
	if err == nil && strings.TrimSpace(text) == "" {
		err = &usageError{message: name + " is empty: there is no token in it", hint: howToInvite}
	}
	return text, true, err
}

var extension = regexp.MustCompile(`^[^\s:]*(/|\.(txt|json|eml|md|token|html?|log|png|jpe?g|pdf|conf|pem|key)$)`)

func looksLikeFile(name string) bool {
	return len(name) < 256 && extension.MatchString(strings.ToLower(name))
}

func readToken(name string, in io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(in, maxTokenInput+1))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if len(raw) > maxTokenInput {
		return "", &usageError{message: fmt.Sprintf("%s is no token: it has more than %d MiB", name, maxTokenInput>>20), hint: howToInvite}
	}
	return string(raw), nil
}

// tokenIn finds the token in a text, and returns it as it was made. An error says what the text is instead, and never quotes it.
func tokenIn(text string) (string, error) {
	token, err := identity.ParseToken(text)
	if err != nil {
		for _, decode := range []func(string) string{unwrapped, unwrapped64, near} {
			again, second := identity.ParseToken(decode(text))
			if second == nil {
				token, err = again, nil
				break
			}
			if errors.Is(err, identity.ErrTokenNotWarren) {
				err = second
			}
		}
	}
	if err == nil {
		return token.Encode(), nil
	}
	if errors.Is(err, identity.ErrTokenNotWarren) {
		if what, hint := whatIsIt(text); what != "" {
			return "", hinted(fmt.Errorf("%s: %w", what, identity.ErrTokenNotWarren), hint)
		}
	}
	hint := howToInvite
	switch {
	case errors.Is(err, identity.ErrTokenTruncated):
		hint = "copy all of it, up to its last character; or hand it over as a file: sudo warren join FILE"
	case errors.Is(err, identity.ErrTokenSeveral):
		hint = "hand over the one of the mesh that is meant"
	case errors.Is(err, identity.ErrTokenVersion):
		hint = "the mesh runs another version of warren: install the same one here"
	}
	return "", hinted(err, hint)
}

// What mail and the web put into a line: soft breaks of quoted-printable (RFC 2045, section 6.7) and of shells, tags, and characters by name.
var (
	softBreak = regexp.MustCompile("[=\\\\][ \t]*\r?\n")
	tag       = regexp.MustCompile(`</?[a-zA-Z]{1,10}(\s[^<>]*)?/?>`)
	entity    = regexp.MustCompile(`&(#[0-9]{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});`)
)

func unwrapped(text string) string {
	return near(entity.ReplaceAllString(tag.ReplaceAllString(softBreak.ReplaceAllString(text, ""), ""), " "))
}

// lines64 matches what is written in lines of base64 (RFC 2045, section 6.8).
var lines64 = regexp.MustCompile(`(?:[A-Za-z0-9+/]{20,}\r?\n)+[A-Za-z0-9+/]*={0,2}|[A-Za-z0-9+/]{20,}={0,2}`)

// unwrapped64 is what the parts of a text that are base64 stand for.
func unwrapped64(text string) string {
	var out strings.Builder
	for _, part := range lines64.FindAllString(text, 64) {
		part = strings.TrimRight(strings.NewReplacer("\r", "", "\n", "").Replace(part), "=")
		if raw, err := base64.RawStdEncoding.DecodeString(part); err == nil && bytes.Contains(bytes.ToLower(bytes.ReplaceAll(raw, []byte{0}, nil)), []byte("warren")) {
			out.Write(raw)
			out.WriteString("\n.\n")
		}
	}
	return unwrapped(out.String())
}

// tokenStart is where a token may begin, tokenRoom more than one takes, with what a mail puts into it.
var tokenStart = regexp.MustCompile(`(?i)warren[0-9]`)

const tokenRoom = 1024

// near cuts a long text down to the places where a token may begin.
func near(text string) string {
	if len(text) <= identity.MaxTokenText {
		return text
	}
	var out strings.Builder
	end := 0
	for _, at := range tokenStart.FindAllStringIndex(text, 64) {
		if at[0] < end {
			continue
		}
		end = min(at[0]+tokenRoom, len(text))
		out.WriteString(text[at[0]:end] + "\n.\n")
	}
	return out.String()[:min(out.Len(), identity.MaxTokenText)]
}

// What people hand over in the place of a token.
var (
	idText   = regexp.MustCompile(`^(?:[a-z2-7]{10}|[a-z2-7]{52})$`)
	keyText  = regexp.MustCompile(`^[A-Za-z0-9+/]{43}=$`)
	hexText  = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
	drawn    = regexp.MustCompile("[▀▄█]{4}")
	revoking = regexp.MustCompile(`revoke --invite [a-z2-7]{10}`)
)

// whatIsIt says what a text is that holds no token, and what to do; "" when that is not known.
func whatIsIt(text string) (what, hint string) {
	one := strings.Trim(strings.TrimSpace(text), "\"'`")
	var object struct {
		Invites, Peers *json.RawMessage
		ID, Token      *string
	}
	isObject := json.Unmarshal([]byte(one), &object) == nil
	parsed, _ := url.Parse(one)
	_, addrErr := netip.ParseAddr(one)
	_, portErr := netip.ParseAddrPort(one)
	switch {
	case strings.HasPrefix(text, "\x89PNG"), strings.HasPrefix(text, "\xff\xd8\xff"), strings.HasPrefix(text, "GIF8"), strings.HasPrefix(text, "%PDF"):
		return "this is a picture or a document, which is not read", "scan its QR code, and hand over the text"
	case drawn.MatchString(text):
		return "this is the drawing of a QR code", "the token stands above it, in letters"
	case strings.Contains(text, "PRIVATE KEY-----"):
		return "this is a private key, which nobody should be given", howToInvite
	case strings.Contains(text, "-----BEGIN"):
		return "this is a certificate or a key", howToInvite
	case strings.Contains(text, "[Interface]") || strings.Contains(text, "[Peer]") && strings.Contains(text, "PublicKey"):
		return "this is a configuration of WireGuard", "a plain WireGuard peer is a [[peer]] of the config file: see /etc/warren/warren.toml; to join a mesh, " + howToInvite
	case strings.HasPrefix(one, "tskey-") || strings.HasPrefix(one, "nodekey:") || strings.HasPrefix(one, "mkey:"):
		return "this is a key of Tailscale", howToInvite
	case keyText.MatchString(one):
		return "this is a WireGuard key", howToInvite
	case revoking.MatchString(text):
		return "these are the words beside a token; the token itself went to standard output", "copy the line that begins with warren1"
	case isObject && object.Invites != nil:
		return "this is the list of invites, which holds no tokens: each is shown once, when it is made", howToInvite
	case isObject && object.Peers != nil:
		return "this is a status, not a token", howToInvite
	case idText.MatchString(one), isObject && object.ID != nil && object.Token == nil:
		return "this is the ID of an invite or a node: the token is shown once, when the invite is made", howToInvite
	case hexText.MatchString(one):
		return "this is the ID of a mesh", howToInvite
	case addrErr == nil, portErr == nil:
		return "this is an address: a mesh is joined by a token alone, which holds addresses", howToInvite
	case parsed != nil && parsed.Scheme != "" && parsed.Host != "":
		return "this is the address of a web page", howToInvite
	case place.ValidName(one) == nil:
		return "this looks like the name of a mesh or a machine", howToInvite
	}
	return "", ""
}
