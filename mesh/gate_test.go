package mesh

import (
	"bytes"
	"io"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// pushPullHeader is memberlist's, encoded as memberlist does it.
type pushPullHeader struct {
	Nodes        int
	UserStateLen int
	Join         bool
}

func pushPull(t testing.TB, h any, rest []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteByte(typePushPull)
	if err := codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(h); err != nil {
		t.Fatal(err)
	}
	b.Write(rest)
	return b.Bytes()
}

func TestGatePackets(t *testing.T) {
	compound := func(parts ...[]byte) []byte {
		p := []byte{typeCompound, byte(len(parts))}
		for _, part := range parts {
			p = append(p, byte(len(part)>>8), byte(len(part)))
		}
		return append(p, bytes.Join(parts, nil)...)
	}
	ping, user, compressed := []byte{typePing, 0x80}, []byte{typeUser, 1, 2}, []byte{9, 0x80, 1}
	for name, tc := range map[string]struct {
		packet []byte
		pass   bool
	}{
		"ping":                 {ping, true},
		"record":               {user, true},
		"with checksum":        {append([]byte{typeHasCRC, 1, 2, 3, 4}, ping...), true},
		"compound":             {compound(ping, user, ping), true},
		"checksummed compound": {append([]byte{typeHasCRC, 1, 2, 3, 4}, compound(ping, user)...), true},
		"empty":                {nil, false},
		"type only":            {[]byte{typePing}, false},
		"compressed":           {compressed, false},
		"compressed inside":    {compound(ping, compressed), false},
		"compound inside":      {compound(compound(ping)), false},
		"checksum twice":       {append([]byte{typeHasCRC, 1, 2, 3, 4, typeHasCRC, 1, 2, 3, 4}, ping...), false},
		"encrypted":            {[]byte{10, 1, 2, 3}, false},
		"labelled":             {[]byte{244, 1, 'x', typePing}, false},
		"cut compound":         {compound(ping, user)[:9], false},
		"short length list":    {[]byte{typeCompound, 200, 0, 1}, false},
		"too large":            {append([]byte{typeUser}, make([]byte, maxPacket)...), false},
	} {
		if _, _, err := openPacket(tc.packet); (err == nil) != tc.pass {
			t.Errorf("%s: got %v, want pass %v", name, err, tc.pass)
		}
	}
}

// Our own messages are taken out of a packet, and memberlist is given the others as they were.
func TestGateTakesOurMessagesOut(t *testing.T) {
	pack := func(parts ...string) []byte {
		var messages [][]byte
		for _, part := range parts {
			messages = append(messages, []byte(part))
		}
		return compound(messages)
	}
	const ping, ack, one, two = "\x00ping", "\x02ack", "\x08one", "\x08two"
	crc := []byte{typeHasCRC, 1, 2, 3, 4}
	for name, tc := range map[string]struct {
		packet, rest []byte
		user         string
	}{
		"none":                   {pack(ping, ack), pack(ping, ack), ""},
		"none, with a checksum":  {append(bytes.Clone(crc), pack(ping, ack)...), append(bytes.Clone(crc), pack(ping, ack)...), ""},
		"alone":                  {[]byte(one), nil, "one"},
		"alone, with a checksum": {append(bytes.Clone(crc), one...), nil, "one"},
		"only such":              {pack(one, two), nil, "one two"},
		"beside one":             {pack(one, ping), []byte(ping), "one"},
		"among several":          {append(bytes.Clone(crc), pack(ping, one, ack, two)...), pack(ping, ack), "one two"},
	} {
		rest, user, err := openPacket(tc.packet)
		if err != nil || !bytes.Equal(rest, tc.rest) || string(bytes.Join(user, []byte(" "))) != tc.user {
			t.Errorf("%s: got %q, %q, %v, want %q and %q", name, rest, user, err, tc.rest, tc.user)
		}
	}
}

func TestGateStreams(t *testing.T) {
	rest := bytes.Repeat([]byte{7}, 3000)
	for name, tc := range map[string]struct {
		stream []byte
		want   int // bytes that get through, -1: refused
	}{
		"push/pull":          {pushPull(t, pushPullHeader{10, 49, true}, rest), len(pushPull(t, pushPullHeader{10, 49, true}, rest))},
		"more than promised": {pushPull(t, pushPullHeader{1, 49, false}, rest), len(pushPull(t, pushPullHeader{1, 49, false}, nil)) + maxNodeState + maxUserState},
		"a million nodes":    {pushPull(t, pushPullHeader{1 << 20, 0, true}, rest), -1},
		"negative nodes":     {pushPull(t, pushPullHeader{-1, 0, true}, rest), -1},
		"large user state":   {pushPull(t, pushPullHeader{1, 1 << 20, true}, rest), -1},
		"odd header":         {pushPull(t, map[string]int{"Nodes": 1, "Nodez": 1, "Join": 1}, rest), -1},
		"not a map":          {[]byte{typePushPull, 0x93, 1, 2, 3}, -1},
		"cut header":         {pushPull(t, pushPullHeader{10, 49, true}, nil)[:12], -1},
		"ping":               {[]byte{typePing, 0x80, 1, 2}, 4},
		"user message":       {[]byte{typeUser, 0x80}, -1},
		"compressed":         {[]byte{9, 0x80}, -1},
		"empty":              {nil, -1},
	} {
		in, err := gateStream(bytes.NewReader(tc.stream))
		if tc.want < 0 {
			if err == nil {
				t.Errorf("%s: got nil, want a refusal", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: got %v, want it to pass", name, err)
			continue
		}
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, tc.stream[:tc.want]) {
			t.Errorf("%s: got %d bytes, %v, want the first %d", name, len(got), err, tc.want)
		}
	}
}

func FuzzGate(f *testing.F) {
	f.Add([]byte{typePing, 0x80})
	f.Add([]byte{typeCompound, 2, 0, 2, 0, 3, 0, 0x80, 8, 1, 2})
	f.Add(pushPull(f, pushPullHeader{10, 49, true}, []byte{1, 2, 3}))
	f.Fuzz(func(t *testing.T, p []byte) {
		if rest, user, err := openPacket(p); err == nil && rest != nil {
			if _, again, err := openPacket(rest); err != nil || len(again) > 0 {
				t.Errorf("the rest of %x: got %d messages of ours in %x, %v, want none", p, len(again), rest, err)
			}
		} else if err == nil && len(user) == 0 && len(p) > 0 && p[0] != typeCompound && p[0] != typeHasCRC {
			t.Errorf("%x: got neither a rest nor messages", p)
		}
		in, err := gateStream(bytes.NewReader(p))
		if err != nil {
			return
		}
		got, err := io.ReadAll(in)
		if err != nil || !bytes.HasPrefix(p, got) {
			t.Errorf("gate changed the stream: %x became %x, %v", p, got, err)
		}
	})
}
