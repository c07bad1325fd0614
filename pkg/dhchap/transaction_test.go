package dhchap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	testHost = "nqn.2014-08.org.nvmexpress:uuid:22222222-2222-2222-2222-222222222222"
	testSub  = "nqn.2014-08.org.example:subsystem"
	testTID  = 0x1234
)

// Keys of the tests: host, controller, and one that is wrong for both.
func testKeys(t testing.TB) (host, ctrl, wrong Key) {
	zero64 := count(64)
	for i := range zero64 {
		zero64[i]--
	}
	return key(t, exampleKey), key(t, keyText("03", zero64)), key(t, keyText("01", count(48)))
}

// pseudo is a stream that is the same each time: SHA-256 of seed and a counter.
type pseudo struct {
	seed string
	n    uint64
	rest []byte
}

func (p *pseudo) Read(b []byte) (int, error) {
	for len(p.rest) < len(b) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(p.seed), p.n))
		p.rest = append(p.rest, sum[:]...)
		p.n++
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// wire carries a transaction between the two sides.
type wire struct {
	host   *Host
	ctrl   *Controller
	tamper func(id messageID, msg []byte) []byte // nil: leaves it as it is

	sent             [][]byte // all messages as they left their sender
	hostDone         bool
	hostErr, ctrlErr error
	receiveErr       error
}

// pair makes two sides that have the keys and agree on everything; the options
// change that.
func pair(t testing.TB, h Hash, g Group, change func(*HostConfig, *ControllerConfig)) *wire {
	hostKey, ctrlKey, _ := testKeys(t)
	hc := HostConfig{
		HostNQN: testHost, SubNQN: testSub, Key: hostKey, ControllerKey: ctrlKey,
		TID: testTID, Hashes: []Hash{h}, Groups: []Group{g},
	}
	cc := ControllerConfig{HostNQN: testHost, SubNQN: testSub, HostKey: hostKey, ControllerKey: ctrlKey}
	if change != nil {
		change(&hc, &cc)
	}
	return &wire{host: NewHost(hc), ctrl: NewController(cc)}
}

func (w *wire) carry(msg []byte) []byte {
	w.sent = append(w.sent, msg)
	msg = bytes.Clone(msg)
	if id, _, err := peek(msg); err == nil && w.tamper != nil {
		msg = w.tamper(id, msg)
	}
	return msg
}

// run goes on until the host is done or has failed.
func (w *wire) run() *wire {
	var received []byte
	for {
		send, done, err := w.host.Next(received)
		if send != nil {
			w.ctrlErr = w.ctrl.Send(w.carry(send))
		}
		if w.hostDone, w.hostErr = done, err; done || err != nil {
			return w
		}
		if received, w.receiveErr = w.ctrl.Receive(); w.receiveErr != nil {
			return w
		}
		received = w.carry(received)
		received = append(received, make([]byte, BufferSize-len(received))...) // as a host gets it
	}
}

// ok reports that each side takes the other for authentic.
func (w *wire) ok() bool {
	authenticated, over := w.ctrl.Done()
	return w.hostDone && authenticated && over && w.hostErr == nil && w.ctrlErr == nil && w.receiveErr == nil
}

func (w *wire) String() string {
	authenticated, over := w.ctrl.Done()
	return fmt.Sprintf("host done %v, %v; controller authenticated %v over %v, %v; receive %v",
		w.hostDone, w.hostErr, authenticated, over, w.ctrlErr, w.receiveErr)
}

func TestAllCombinations(t *testing.T) {
	for _, h := range Hashes() {
		for _, g := range Groups() {
			for _, both := range []bool{false, true} {
				w := pair(t, h, g, func(hc *HostConfig, _ *ControllerConfig) {
					if !both {
						hc.ControllerKey = Key{}
					}
				}).run()
				if !w.ok() {
					t.Errorf("%v, %v, bidirectional %v: %v", h, g, both, w)
				}
				if want := 4 + map[bool]int{true: 1}[both]; len(w.sent) != want {
					t.Errorf("%v, %v, bidirectional %v: %d messages, want %d", h, g, both, len(w.sent), want)
				}
				hostHash, hostGroup := w.host.Negotiated()
				ctrlHash, ctrlGroup := w.ctrl.Negotiated()
				if hostHash != h || ctrlHash != h || hostGroup != g || ctrlGroup != g {
					t.Errorf("%v, %v: negotiated were %v, %v and %v, %v", h, g, hostHash, hostGroup, ctrlHash, ctrlGroup)
				}
			}
		}
	}
}

// golden is what a program of its own (Python: hashlib, hmac, pow, and moduli
// from OpenSSL) has computed: the beginning of R1 and R2, and SHA-256 of all
// five messages. The host's key is used as it is, the controller's is
// transformed by SHA-512.
var golden = []struct {
	hash               Hash
	group              Group
	r1, r2, transcript string
}{
	{SHA256, GroupNull, "55dea10798fa6069ca7265b5b6aab86b", "52eabfdd4eabf6b6364e45e67f4880a5", "c2dc723d1c9498c04cca99bded8d302ba7d79b346ec3ecf06c311f22363cee07"},
	{SHA256, FFDHE2048, "93c8829b6e9e2b7da220ea9d71020924", "7d34b9e3119abc656bd48a30acecf35f", "be0a7799ca4b052561ff8608226250c1861538ffbdfbfe483d60cd55c596754e"},
	{SHA256, FFDHE3072, "40d9add684329358f60075606561aec5", "120399af5237cb9c7de3946cbfcd4359", "0f0cd5eb5323c4424b6d51db32b4467fa58fa135218b5cdf420bb52172ff264e"},
	{SHA256, FFDHE4096, "87f5b5adbd5a179df0083832b634dd9c", "58c67dd026d09ee10c7495eff4145fc9", "9592dfbd110185e72367de772f8f0ed29b29518a4fb41e0824ec63487b0998c7"},
	{SHA256, FFDHE6144, "8007e644af9dfb0b6600db05f3356ec9", "ddb7548522334526e50c6677dbcbc6eb", "b258b42a668b1c66b66243cff5e42ec7e8d7f9f771ddbdbffa24fd10e2b37bb3"},
	{SHA256, FFDHE8192, "ab029c469e8ea09570d3fa097b8d8215", "173d877317aca0037e5c856ac82cd697", "d19fbab01a5d9e47b9846e8f6b8a12006b82b1e947d84b00338aee4398e83a9d"},
	{SHA384, GroupNull, "7264fe28dc0412c085a7d3b37936f589", "98685b0a5a7cb38a0371c975b521ec0b", "8fd560b187cc3a687ca7be761252d407fc89cc13a07dac7a2a4c322064fe2ca6"},
	{SHA384, FFDHE2048, "7b868ec58efa8ec9987e4fe3ed4a6d5b", "d85f92535768b3bbf899d936cd136593", "86ddb7e1993d2d8f50d1bb2fee47d8081691b0d96b847b63615a2470d0ec6e0d"},
	{SHA384, FFDHE3072, "3abfb4a12eda87f7dd1c0751557c464e", "41f06fad5b6ea52f88c26aef7d76411f", "a760e4f74d81afd391c05a4ddad4c858dc4df01a6b241d8be5a359c5522c911e"},
	{SHA384, FFDHE4096, "91d86204964ce64485df1c04bd3b8be1", "6744929859f65d8f54e67ebe54918dae", "cb9e1e21e7eeca4ade44464a8c6a964295528f842cff71d35b3f1f485d0c44ed"},
	{SHA384, FFDHE6144, "a0eb1550d1e732c617bb648308a5a182", "2943592c58ce45b01de7d19d0e9fca89", "d0118ba202f44fdca6fc704029be2d8d01f66c74972583676aa1ebe37e245041"},
	{SHA384, FFDHE8192, "6ca8e4f98d13362e1935b8a20b033097", "994060840b29b1ce37138ae062d344c1", "049795d47a9e897e9ba07d48b40772f1d7df945a2e168484afd6b9ec04a88f77"},
	{SHA512, GroupNull, "9fcd9b14d01818d373d92e1d5ed17676", "a2dc46b1bc7456a49c9b8b354de2a80d", "4999a5f4a8983ce36506dba1af8cdd3580a0ea7152330de166a2e0e21bcb46c9"},
	{SHA512, FFDHE2048, "acc71037d03a9be499aab6eb376d6514", "6429433941f39d3ec83e8ca28f82a6f6", "e9c66fb9799e5baeb353a6f1b1ef1e42b9ceeab7f892959a147f432b46dd5982"},
	{SHA512, FFDHE3072, "f01072e6f6968511cadb69238bfc16f8", "b276c9d98cf0e5b1e0e5898e9c84157a", "2924b282b9661dac862478e7d1fd537cc82f961f1ad18aebd4d90fcbf7c48f00"},
	{SHA512, FFDHE4096, "505f111ce1d22394a0a71e93f8bcb1df", "2306d4b21a53be549f9aac25d502b4da", "8958f7777fdaac222d780128c8870bb7a929f7caab80f7fd1a40eabb8e78853f"},
	{SHA512, FFDHE6144, "eb0e117a8e7b02e9d0d36c90f5b6becc", "13f2eae161168fbef1489e33f8a871c6", "6e7b6a00e794785b542f531c6120a8d520e0b2621ebfadab05dba0346059c258"},
	{SHA512, FFDHE8192, "ba0d8f4f7a4e37215de1165cafbb95f8", "6669e917fd2121ce14cb09533a3a615b", "b4630198b5b44750c822c4d67d4921487688c3f826e92e4e44932e56ffb9be67"},
}

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		t.Run(fmt.Sprint(tc.hash, tc.group), func(t *testing.T) {
			w := pair(t, tc.hash, tc.group, func(hc *HostConfig, cc *ControllerConfig) {
				hc.Rand, cc.Rand = &pseudo{seed: "host"}, &pseudo{seed: "controller"}
			}).run()
			if !w.ok() || len(w.sent) != 5 {
				t.Fatal(w)
			}
			if r1 := hex.EncodeToString(w.sent[2][16:32]); r1 != tc.r1 {
				t.Errorf("R1 is %s, want %s", r1, tc.r1)
			}
			if r2 := hex.EncodeToString(w.sent[3][16:32]); r2 != tc.r2 {
				t.Errorf("R2 is %s, want %s", r2, tc.r2)
			}
			if sum := sha256.Sum256(slices.Concat(w.sent...)); hex.EncodeToString(sum[:]) != tc.transcript {
				t.Error("other messages than expected")
			}
		})
	}
}

// The defaults offer everything, as Linux does; the controller takes the
// cheapest unless it is told its preferences.
func TestChoice(t *testing.T) {
	for _, tc := range []struct {
		name   string
		host   HostConfig
		ctrl   ControllerConfig
		hash   Hash
		group  Group
		reason error
	}{
		{name: "defaults", hash: SHA256, group: GroupNull},
		{name: "controller's preference", ctrl: ControllerConfig{Hashes: []Hash{SHA512, SHA256}, Groups: []Group{FFDHE3072, GroupNull}},
			hash: SHA512, group: FFDHE3072},
		{name: "host's limits", host: HostConfig{Hashes: []Hash{SHA384, SHA512}, Groups: []Group{FFDHE3072, FFDHE2048}},
			hash: SHA384, group: FFDHE2048},
		{name: "unknown ones offered", host: HostConfig{Hashes: []Hash{0xe0, 4, SHA512}, Groups: []Group{0xff, 6, FFDHE2048}},
			hash: SHA512, group: FFDHE2048},
		{name: "no common hash", host: HostConfig{Hashes: []Hash{SHA256}}, ctrl: ControllerConfig{Hashes: []Hash{SHA384}}, reason: ErrHashUnusable},
		{name: "no common group", host: HostConfig{Groups: []Group{GroupNull}}, ctrl: ControllerConfig{Groups: []Group{FFDHE3072}}, reason: ErrGroupUnusable},
		{name: "unknown hash on both sides", host: HostConfig{Hashes: []Hash{7}}, ctrl: ControllerConfig{Hashes: []Hash{7}}, reason: ErrHashUnusable},
		{name: "no hash on both sides", host: HostConfig{Hashes: []Hash{HashNone}}, ctrl: ControllerConfig{Hashes: []Hash{HashNone}}, reason: ErrHashUnusable},
		{name: "unknown group on both sides", host: HostConfig{Groups: []Group{7}}, ctrl: ControllerConfig{Groups: []Group{7}}, reason: ErrGroupUnusable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := pair(t, 0, 0, func(hc *HostConfig, cc *ControllerConfig) {
				hc.Hashes, hc.Groups = tc.host.Hashes, tc.host.Groups
				cc.Hashes, cc.Groups = tc.ctrl.Hashes, tc.ctrl.Groups
			}).run()
			if tc.reason != nil {
				if w.ok() || !errors.Is(w.ctrlErr, tc.reason) || !errors.Is(w.hostErr, tc.reason) || fromPeer(w.ctrlErr) {
					t.Errorf("%v, want %v", w, tc.reason)
				}
				return
			}
			if h, g := w.ctrl.Negotiated(); !w.ok() || h != tc.hash || g != tc.group {
				t.Errorf("%v, %v: %v", h, g, w)
			}
		})
	}
}

func TestWrongKeysAndNames(t *testing.T) {
	_, _, wrong := testKeys(t)
	other := "nqn.2014-08.org.example:other"
	for _, tc := range []struct {
		name   string
		change func(*HostConfig, *ControllerConfig)
		finder string // who finds it
	}{
		{"host has the wrong key", func(h *HostConfig, _ *ControllerConfig) { h.Key = wrong }, "controller"},
		{"host has no key", func(h *HostConfig, _ *ControllerConfig) { h.Key = Key{} }, "host alone"},
		{"controller has no key for the host", func(_ *HostConfig, c *ControllerConfig) { c.HostKey = Key{} }, "controller"},
		{"controller has the wrong key of its own", func(_ *HostConfig, c *ControllerConfig) { c.ControllerKey = wrong }, "host"},
		{"controller has no key of its own", func(_ *HostConfig, c *ControllerConfig) { c.ControllerKey = Key{} }, "controller"},
		{"controller has the host's key for its own", func(_ *HostConfig, c *ControllerConfig) { c.ControllerKey = c.HostKey }, "host"},
		{"host names itself otherwise", func(h *HostConfig, _ *ControllerConfig) { h.HostNQN = other }, "controller"},
		{"host means another subsystem", func(h *HostConfig, _ *ControllerConfig) { h.SubNQN = other }, "controller"},
	} {
		for _, g := range []Group{GroupNull, FFDHE2048} {
			t.Run(fmt.Sprint(tc.name, " ", g), func(t *testing.T) {
				w := pair(t, SHA256, g, tc.change).run()
				authenticated, over := w.ctrl.Done()
				if w.hostDone || authenticated || !errors.Is(w.hostErr, ErrAuthenticationFailed) {
					t.Fatal(w)
				}
				if tc.finder == "host alone" {
					if len(w.sent) != 0 {
						t.Errorf("%d messages were sent", len(w.sent))
					}
					return
				}
				byHost := tc.finder == "host"
				if !over || !errors.Is(w.ctrlErr, ErrAuthenticationFailed) || fromPeer(w.hostErr) == byHost || fromPeer(w.ctrlErr) != byHost {
					t.Error(w)
				}
				want := idFailure1
				if byHost {
					want = idFailure2
				}
				last := w.sent[len(w.sent)-1]
				if id, tid, err := peek(last); err != nil || id != want || tid != testTID || last[6] != 1 || last[7] != 1 {
					t.Errorf("the last message is % x", last)
				}
			})
		}
	}
}

// ignorable are the bytes that mean nothing: reserved, and padding of lists.
func ignorable(id messageID, at int) bool {
	reserved := map[messageID][][2]int{
		idNegotiate: {{2, 4}, {9, 10}, {13, 42}, {43, 72}},
		idChallenge: {{2, 4}, {7, 8}},
		idReply:     {{2, 4}, {7, 8}, {9, 10}},
		idSuccess1:  {{2, 4}, {7, 8}, {9, 16}},
		idSuccess2:  {{2, 4}, {6, 16}},
	}
	return slices.ContainsFunc(reserved[id], func(r [2]int) bool { return r[0] <= at && at < r[1] })
}

// No byte that means anything can be changed on the way without both sides
// ending up not authenticated to each other.
func TestEveryByteMatters(t *testing.T) {
	for _, tc := range []struct {
		group Group
		bytes func(n int) []int // which to change
	}{
		{GroupNull, func(n int) []int { return slices.Collect(seq(n)) }},
		{FFDHE2048, func(n int) []int { // heads, and some of the DH value
			if n <= 100 {
				return nil // nothing in it that is not in the case above
			}
			return append(slices.Collect(seq(16)), n-256, n-255, n-100, n-1)
		}},
	} {
		whole := pair(t, SHA256, tc.group, nil).run()
		if !whole.ok() {
			t.Fatal(whole)
		}
		for i, msg := range whole.sent {
			for _, at := range tc.bytes(len(msg)) {
				for _, flip := range []byte{0x01, 0x80, 0xff} {
					w := pair(t, SHA256, tc.group, nil)
					n := 0
					w.tamper = func(_ messageID, msg []byte) []byte {
						if n == i {
							msg[at] ^= flip
						}
						n++
						return msg
					}
					id, _, _ := peek(msg)
					if w.run().ok() != ignorable(id, at) {
						t.Errorf("%v, %v, byte %d ^ %#02x: %v", tc.group, id, at, flip, w)
					}
				}
			}
		}
	}
}

func seq(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// edit changes a message of one kind on the way by decoding it.
func edit[M message](id messageID, change func(*M)) func(messageID, []byte) []byte {
	return func(got messageID, b []byte) []byte {
		if got != id {
			return b
		}
		m, err := decode(id, b)
		if err != nil {
			panic(err)
		}
		changed := m.(M)
		change(&changed)
		if b, err = changed.AppendBinary(nil); err != nil {
			panic(err)
		}
		return b
	}
}

func put(id messageID, at int, v byte) func(messageID, []byte) []byte {
	return func(got messageID, b []byte) []byte {
		if got == id {
			b[at] = v
		}
		return b
	}
}

func TestReasons(t *testing.T) {
	var whole *wire // whose messages can be replayed
	for _, tc := range []struct {
		name   string
		group  Group
		tamper func(messageID, []byte) []byte
		byHost bool // the host finds it, otherwise the controller
		want   Explanation
	}{
		{"secure channel asked for", 0, put(idNegotiate, 6, 2), false, ErrConcatenationMismatch},
		{"another protocol", 0, put(idNegotiate, 8, 2), false, ErrProtocolUnusable},
		{"no protocol", 0, put(idNegotiate, 7, 0), false, ErrProtocolUnusable},
		{"hash list too long", 0, put(idNegotiate, 10, 31), false, ErrIncorrectPayload},
		{"unknown hash", 0, put(idNegotiate, 12, 9), false, ErrHashUnusable},
		{"unknown group", 0, put(idNegotiate, 42, 9), false, ErrGroupUnusable},
		{"no Negotiate", 0, put(idNegotiate, 1, 0x02), false, ErrIncorrectMessage},
		{"Negotiate cut", 0, func(_ messageID, b []byte) []byte { return b[:min(len(b), 71)] }, false, ErrIncorrectPayload},
		{"nothing", 0, func(messageID, []byte) []byte { return nil }, false, ErrIncorrectPayload},

		{"hash not offered", 0, edit(idChallenge, func(m *Challenge) { m.Hash = SHA384 }), true, ErrHashUnusable},
		{"hash unknown to the host", 0, edit(idChallenge, func(m *Challenge) { m.Hash = 4 }), true, ErrHashUnusable},
		{"group not offered", 0, edit(idChallenge, func(m *Challenge) { m.Group = FFDHE2048 }), true, ErrGroupUnusable},
		{"group taken away", FFDHE2048, edit(idChallenge, func(m *Challenge) { m.Group, m.DHValue = GroupNull, nil }), true, ErrGroupUnusable},
		{"challenge of another length", 0, edit(idChallenge, func(m *Challenge) { m.Value = m.Value[:31] }), true, ErrIncorrectPayload},
		{"challenge of another transaction", 0, edit(idChallenge, func(m *Challenge) { m.TID++ }), true, ErrIncorrectPayload},
		{"DH value with the null group", 0, edit(idChallenge, func(m *Challenge) { m.DHValue = make([]byte, 4) }), true, ErrIncorrectPayload},
		{"no DH value", FFDHE2048, edit(idChallenge, func(m *Challenge) { m.DHValue = nil }), true, ErrIncorrectPayload},
		{"DH value of 255 bytes", FFDHE2048, edit(idChallenge, func(m *Challenge) { m.DHValue = m.DHValue[1:] }), true, ErrIncorrectPayload},
		{"DH value of 260 bytes", FFDHE2048, edit(idChallenge, func(m *Challenge) { m.DHValue = append(make([]byte, 4), m.DHValue...) }), true, ErrIncorrectPayload},
		{"DH value 0", FFDHE2048, edit(idChallenge, func(m *Challenge) { m.DHValue = make([]byte, 256) }), true, ErrIncorrectPayload},
		{"DH value 1", FFDHE2048, edit(idChallenge, func(m *Challenge) { m.DHValue = []byte{0, 0, 0, 1} }), true, ErrIncorrectPayload},
		{"no Challenge", 0, put(idChallenge, 1, 0x03), true, ErrIncorrectMessage},

		{"reply of another transaction", 0, edit(idReply, func(m *Reply) { m.TID++ }), false, ErrIncorrectPayload},
		{"reply of another length", 0, edit(idReply, func(m *Reply) { m.Response, m.Value = make([]byte, 48), make([]byte, 48) }), false, ErrIncorrectPayload},
		{"empty reply", 0, edit(idReply, func(m *Reply) { m.Response, m.Value = nil, nil }), false, ErrIncorrectPayload},
		{"reply without DH value", FFDHE2048, edit(idReply, func(m *Reply) { m.DHValue = nil }), false, ErrIncorrectPayload},
		{"reply with a DH value too long", FFDHE2048, edit(idReply, func(m *Reply) { m.DHValue = make([]byte, 1024) }), false, ErrIncorrectPayload},
		{"reply with a DH value of 255 bytes", FFDHE2048, edit(idReply, func(m *Reply) { m.DHValue = m.DHValue[1:] }), false, ErrIncorrectPayload},
		{"reply with a DH value for the null group", 0, edit(idReply, func(m *Reply) { m.DHValue = make([]byte, 4) }), false, ErrIncorrectPayload},
		{"reply with DH value p-1", FFDHE2048, edit(idReply, func(m *Reply) {
			m.DHValue = groups[FFDHE2048].prime().Bytes()
			m.DHValue[255]--
		}), false, ErrIncorrectPayload},
		{"wrong response", 0, edit(idReply, func(m *Reply) { m.Response[0]++ }), false, ErrAuthenticationFailed},
		{"challenge sent back", 0, edit(idReply, func(m *Reply) { copy(m.Value, whole.sent[1][16:]) }), false, ErrAuthenticationFailed},
		{"CVALID 2", 0, put(idReply, 8, 2), false, ErrIncorrectPayload},
		{"no Reply", 0, put(idReply, 1, 0x04), false, ErrIncorrectMessage},

		{"success of another transaction", 0, edit(idSuccess1, func(m *Success1) { m.TID++ }), true, ErrIncorrectPayload},
		{"success with another hash length", 0, edit(idSuccess1, func(m *Success1) { m.HL, m.Response = 48, make([]byte, 48) }), true, ErrIncorrectPayload},
		{"success without the response", 0, edit(idSuccess1, func(m *Success1) { m.Response = nil }), true, ErrAuthenticationFailed},
		{"success with the wrong response", 0, edit(idSuccess1, func(m *Success1) { m.Response[31]++ }), true, ErrAuthenticationFailed},
		{"success with the host's own response", 0, edit(idSuccess1, func(m *Success1) { copy(m.Response, whole.sent[2][16:]) }), true, ErrAuthenticationFailed},
		{"RVALID 3", 0, put(idSuccess1, 8, 3), true, ErrIncorrectPayload},
		{"no Success1", 0, put(idSuccess1, 1, 0x01), true, ErrIncorrectMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			random := func(hc *HostConfig, cc *ControllerConfig) {
				hc.Rand, cc.Rand = &pseudo{seed: "host"}, &pseudo{seed: "controller"}
			}
			whole = pair(t, SHA256, tc.group, random).run()
			w := pair(t, SHA256, tc.group, random)
			failures := 0
			w.tamper = func(id messageID, b []byte) []byte {
				if id == idFailure1 || id == idFailure2 {
					if failures++; b[6] != 1 || Explanation(b[7]) != tc.want {
						t.Errorf("on the wire: % x", b)
					}
					return b
				}
				return tc.tamper(id, b)
			}
			w.run()
			authenticated, over := w.ctrl.Done()
			if w.hostDone || authenticated || !over || failures != 1 {
				t.Errorf("%v; %d failure messages", w, failures)
			}
			if !errors.Is(w.hostErr, tc.want) || !errors.Is(w.ctrlErr, tc.want) {
				t.Errorf("%v; want %v", w, tc.want)
			}
			if fromPeer(w.hostErr) == tc.byHost || fromPeer(w.ctrlErr) != tc.byHost {
				t.Errorf("found by the wrong side: %v", w)
			}
		})
	}
}

// A DH value without its leading zeros is the same number.
func TestShortDHValue(t *testing.T) {
	w := pair(t, SHA256, FFDHE2048, func(hc *HostConfig, cc *ControllerConfig) {
		hc.Rand, cc.Rand = smallExponent(hc), smallExponent(nil)
	})
	shorten := func(v *[]byte) {
		for len(*v) > 4 && binary.BigEndian.Uint32(*v) == 0 {
			*v = (*v)[4:]
		}
		if len(*v) > 8 {
			t.Errorf("a value of %d bytes, which was to be small", len(*v))
		}
	}
	w.tamper = func(id messageID, b []byte) []byte {
		b = edit(idChallenge, func(m *Challenge) { shorten(&m.DHValue) })(id, b)
		return edit(idReply, func(m *Reply) { shorten(&m.DHValue) })(id, b)
	}
	if !w.run().ok() {
		t.Error(w)
	}
}

// smallExponent yields random bytes in which the exponent is 40.
func smallExponent(host *HostConfig) io.Reader {
	exponent := make([]byte, exponentSize)
	exponent[exponentSize-1] = 40
	if host != nil {
		return io.MultiReader(bytes.NewReader(exponent), &pseudo{seed: "h"})
	}
	return io.MultiReader(io.LimitReader(&pseudo{seed: "c"}, 36), bytes.NewReader(exponent))
}

// CVALID without a sequence number belongs to secure channels; it asks for no
// response.
func TestChallengeWithoutSequenceNumber(t *testing.T) {
	w := pair(t, SHA256, GroupNull, nil)
	w.tamper = edit(idReply, func(m *Reply) { m.SeqNum = 0 })
	w.run()
	if got := w.sent[3]; !bytes.Equal(got[:16], []byte{1, 3, 0, 0, 0x34, 0x12, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("Success1 is % x", got)
	}
	if w.hostDone || !errors.Is(w.hostErr, ErrAuthenticationFailed) { // it did ask
		t.Error(w)
	}
}

// A response that nobody asked for is no Success1.
func TestResponseNotAskedFor(t *testing.T) {
	w := pair(t, SHA256, GroupNull, func(hc *HostConfig, _ *ControllerConfig) { hc.ControllerKey = Key{} })
	w.tamper = edit(idSuccess1, func(m *Success1) { m.Response = make([]byte, 32) })
	if w.run(); w.hostDone || !errors.Is(w.hostErr, ErrIncorrectPayload) {
		t.Error(w)
	}
	if authenticated, over := w.ctrl.Done(); authenticated || !over || !fromPeer(w.ctrlErr) {
		t.Errorf("the controller does not mind the host's Failure2: %v", w)
	}
}

// Whoever answers nothing to a challenge is told apart from one with a wrong
// key: the subsystem may have none.
func TestNoResponse(t *testing.T) {
	w := pair(t, SHA256, GroupNull, nil)
	w.tamper = edit(idSuccess1, func(m *Success1) { m.Response = nil })
	if w.run(); w.hostErr == nil || !strings.Contains(w.hostErr.Error(), "does not respond") {
		t.Error(w)
	}
}

// afterSends returns a controller that has got the first n messages of the
// host, and the whole transaction.
func afterSends(t *testing.T, n int) (*Controller, *wire) {
	t.Helper()
	random := func(hc *HostConfig, cc *ControllerConfig) {
		hc.Rand, cc.Rand = &pseudo{seed: "host"}, &pseudo{seed: "controller"}
	}
	whole := pair(t, SHA256, GroupNull, random).run()
	ctrl := pair(t, SHA256, GroupNull, random).ctrl
	for i := range n {
		if err := ctrl.Send(whole.sent[2*i]); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			if got, err := ctrl.Receive(); err != nil || !bytes.Equal(got, whole.sent[2*i+1]) {
				t.Fatalf("% x, %v", got, err)
			}
		}
	}
	return ctrl, whole
}

func TestControllerOrder(t *testing.T) {
	for done := range 4 {
		for i := range 5 {
			if i == 2*done {
				continue // this one is due
			}
			t.Run(fmt.Sprintf("message %d after %d sends", i+1, done), func(t *testing.T) {
				ctrl, whole := afterSends(t, done)
				if authenticated, over := ctrl.Done(); authenticated != (done == 3) || over != (done == 3) {
					t.Errorf("authenticated %v, over %v", authenticated, over)
				}
				if _, err := ctrl.Receive(); !errors.Is(err, ErrNoMessage) {
					t.Errorf("something to receive: %v", err)
				}
				err := ctrl.Send(whole.sent[i])
				if !errors.Is(err, ErrIncorrectMessage) {
					t.Errorf("sent: %v", err)
				}
				if authenticated, over := ctrl.Done(); authenticated || over {
					t.Errorf("before Failure1: authenticated %v, over %v", authenticated, over)
				}
				// Neither does a further message change what is to be received,
				if err := ctrl.Send(whole.sent[0]); err == nil {
					t.Error("a message was taken after the failure")
				}
				got, err := ctrl.Receive()
				if err != nil {
					t.Fatal(err)
				}
				if m, err := DecodeFailure1(got); err != nil || m != (Failure1{testTID, ErrIncorrectMessage}) {
					t.Errorf("received %+v, %v", m, err)
				}
				if authenticated, over := ctrl.Done(); authenticated || !over {
					t.Errorf("after Failure1: authenticated %v, over %v", authenticated, over)
				}
				// nor does it bring the transaction back to life.
				for _, msg := range whole.sent {
					if err := ctrl.Send(msg); err == nil {
						t.Error("a message was taken after the end")
					}
				}
				if _, err := ctrl.Receive(); !errors.Is(err, ErrNoMessage) {
					t.Errorf("something to receive after the end: %v", err)
				}
			})
		}
	}
}

// A host that sends again before it has received what is there for it.
func TestControllerSendTwice(t *testing.T) {
	ctrl, whole := afterSends(t, 0)
	if err := ctrl.Send(whole.sent[0]); err != nil {
		t.Fatal(err)
	}
	if err := ctrl.Send(whole.sent[2]); !errors.Is(err, ErrIncorrectMessage) {
		t.Errorf("%v", err)
	}
	if got, err := ctrl.Receive(); err != nil || got[1] != 0xf1 {
		t.Errorf("% x, %v", got, err)
	}
}

// The host is authenticated only when it can know of it.
func TestControllerDone(t *testing.T) {
	w := pair(t, SHA256, GroupNull, func(hc *HostConfig, _ *ControllerConfig) { hc.ControllerKey = Key{} })
	var received []byte
	for i := range 2 {
		if authenticated, over := w.ctrl.Done(); authenticated || over {
			t.Errorf("step %d: authenticated %v, over %v", i, authenticated, over)
		}
		send, _, err := w.host.Next(received)
		if err := errors.Join(err, w.ctrl.Send(send)); err != nil {
			t.Fatal(err)
		}
		if authenticated, over := w.ctrl.Done(); authenticated || over {
			t.Errorf("step %d: authenticated %v, over %v", i, authenticated, over)
		}
		if received, err = w.ctrl.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	if authenticated, over := w.ctrl.Done(); !authenticated || !over {
		t.Errorf("authenticated %v, over %v", authenticated, over)
	}
	if send, done, err := w.host.Next(received); send != nil || !done || err != nil {
		t.Errorf("% x, %v, %v", send, done, err)
	}
}

func TestControllerHearsHalfAFailure2(t *testing.T) {
	ctrl, _ := afterSends(t, 1)
	if err := ctrl.Send(encode(t, Failure2{testTID, ErrHashUnusable})[:7]); !errors.Is(err, ErrIncorrectPayload) || fromPeer(err) {
		t.Error(err)
	}
	if got, err := ctrl.Receive(); err != nil || got[1] != 0xf1 {
		t.Errorf("% x, %v", got, err)
	}
}

// The host gives up before it has received what is there for it.
func TestControllerForgetsAfterFailure2(t *testing.T) {
	ctrl, whole := afterSends(t, 0)
	if err := ctrl.Send(whole.sent[0]); err != nil {
		t.Fatal(err)
	}
	if err := ctrl.Send(encode(t, Failure2{testTID, ErrAuthenticationFailed})); !fromPeer(err) {
		t.Error(err)
	}
	if got, err := ctrl.Receive(); !errors.Is(err, ErrNoMessage) {
		t.Errorf("% x, %v", got, err)
	}
}

func TestControllerHearsFailure2(t *testing.T) {
	for done := range 4 {
		ctrl, _ := afterSends(t, done)
		err := ctrl.Send(encode(t, Failure2{testTID, ErrGroupUnusable}))
		if !errors.Is(err, ErrGroupUnusable) || !fromPeer(err) {
			t.Errorf("after %d sends: %v", done, err)
		}
		if authenticated, over := ctrl.Done(); authenticated || !over {
			t.Errorf("after %d sends: authenticated %v, over %v", done, authenticated, over)
		}
		if _, err := ctrl.Receive(); !errors.Is(err, ErrNoMessage) {
			t.Errorf("after %d sends: an answer: %v", done, err)
		}
	}
}

func TestHostOrder(t *testing.T) {
	random := func(hc *HostConfig, cc *ControllerConfig) {
		hc.Rand, cc.Rand = &pseudo{seed: "host"}, &pseudo{seed: "controller"}
	}
	whole := pair(t, SHA256, GroupNull, random).run()
	for done := range 3 {
		for i, msg := range append(whole.sent, nil) {
			if done < 2 && i == 2*done+1 {
				continue // this one is due
			}
			host := pair(t, SHA256, GroupNull, random).host
			var received []byte
			for k := range done + 1 {
				if _, _, err := host.Next(received); err != nil {
					t.Fatal(err)
				}
				received = whole.sent[min(2*k+1, 3)]
			}
			want := ErrIncorrectMessage
			if msg == nil && done < 2 {
				want = ErrIncorrectPayload
			}
			send, over, err := host.Next(msg)
			if over || !errors.Is(err, want) {
				t.Errorf("message %d after %d: %v, %v", i+1, done, over, err)
			}
			if done < 2 {
				if m, err := DecodeFailure2(send); err != nil || m != (Failure2{testTID, want}) {
					t.Errorf("message %d after %d: sends % x", i+1, done, send)
				}
			} else if send != nil {
				t.Errorf("message %d after the end: sends % x", i+1, send)
			}
			if send, over, err := host.Next(whole.sent[1]); send != nil || over || err == nil {
				t.Errorf("it goes on after the failure: % x, %v, %v", send, over, err)
			}
		}
	}
}

// What the host offered without knowing it itself cannot be chosen.
func TestHostOfferedNonsense(t *testing.T) {
	for _, tc := range []struct {
		challenge Challenge
		want      Explanation
	}{
		{Challenge{TID: testTID, Hash: HashNone}, ErrHashUnusable},
		{Challenge{TID: testTID, Hash: 0xe0, Value: make([]byte, 32)}, ErrHashUnusable},
		{Challenge{TID: testTID, Hash: SHA256, Group: 0xe0, Value: make([]byte, 32)}, ErrGroupUnusable},
	} {
		host := pair(t, 0, 0, func(hc *HostConfig, _ *ControllerConfig) {
			hc.Hashes, hc.Groups = []Hash{HashNone, SHA256, 0xe0}, []Group{GroupNull, 0xe0}
		}).host
		if _, _, err := host.Next(nil); err != nil {
			t.Fatal(err)
		}
		if _, done, err := host.Next(encode(t, tc.challenge)); done || !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.challenge, err, tc.want)
		}
	}
}

func TestHostHearsFailure1(t *testing.T) {
	for _, explanation := range []Explanation{0, ErrAuthenticationFailed, ErrHashUnusable, 0xff} {
		host := pair(t, SHA256, GroupNull, nil).host
		if _, _, err := host.Next(nil); err != nil {
			t.Fatal(err)
		}
		send, done, err := host.Next(encode(t, Failure1{99, explanation}))
		if send != nil || done || !errors.Is(err, explanation) || !fromPeer(err) {
			t.Errorf("% x, %v, %v; want %v", send, done, err, explanation)
		}
	}
}

// Each side fails if it has no random numbers, and says so to the other.
func TestNoRandomNumbers(t *testing.T) {
	broken := errors.New("no entropy")
	for _, g := range []Group{GroupNull, FFDHE2048} {
		for n := range int64(3) { // how many bytes there are, in parts of 40
			few := func(seed string) io.Reader {
				return io.MultiReader(io.LimitReader(&pseudo{seed: seed}, 40*n), iotest.ErrReader(broken))
			}
			if n > 0 && g == GroupNull {
				continue // enough
			}
			w := pair(t, SHA256, g, func(_ *HostConfig, cc *ControllerConfig) { cc.Rand = few("c") }).run()
			if w.hostDone || !errors.Is(w.ctrlErr, broken) || !errors.Is(w.hostErr, ErrAuthenticationFailed) || !fromPeer(w.hostErr) {
				t.Errorf("%v, controller: %v", g, w)
			}
			w = pair(t, SHA256, g, func(hc *HostConfig, _ *ControllerConfig) { hc.Rand = few("h") }).run()
			if w.hostDone || !errors.Is(w.hostErr, broken) || !errors.Is(w.ctrlErr, ErrAuthenticationFailed) || !fromPeer(w.ctrlErr) {
				t.Errorf("%v, host: %v", g, w)
			}
		}
	}
}

// Sequence numbers are never 0, whatever the random numbers are.
func TestSequenceNumber(t *testing.T) {
	_, n, err := newChallenge(SHA256, bytes.NewReader(make([]byte, 36)))
	if err != nil || n == 0 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestHostOffersNothing(t *testing.T) {
	w := pair(t, SHA256, GroupNull, func(hc *HostConfig, _ *ControllerConfig) { hc.Hashes = []Hash{} })
	if send, done, err := w.host.Next(nil); send != nil || done || err == nil {
		t.Errorf("% x, %v, %v", send, done, err)
	}
}

// split cuts fuzzed bytes into messages, each with its length before it.
func split(b []byte) [][]byte {
	var msgs [][]byte
	for len(b) > 1 {
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		msgs = append(msgs, b[2:][:n])
		b = b[2+n:]
	}
	return msgs
}

func join(msgs ...[]byte) []byte {
	var b []byte
	for _, m := range msgs {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(m))), m...)
	}
	return b
}

// seeds for the fuzzers: transactions with keys that are wrong.
func addSeeds(f *testing.F, change func(*HostConfig, *ControllerConfig)) {
	for _, g := range []Group{GroupNull, FFDHE2048} {
		w := pair(f, SHA256, g, change).run()
		f.Add(join(w.sent...))
		for i := range w.sent {
			f.Add(join(w.sent[i:]...))
			f.Add(join(w.sent[i]))
		}
	}
	f.Add([]byte{0, 0, 0})
	f.Add(join(encode(f, Failure1{testTID, ErrHashUnusable}), encode(f, Failure2{testTID, ErrHashUnusable})))
}

// FuzzController lets a host without the key say anything.
func FuzzController(f *testing.F) {
	_, _, wrong := testKeys(f)
	setup := func(hc *HostConfig, cc *ControllerConfig) {
		hc.Key, cc.Rand = wrong, &pseudo{seed: "controller"}
	}
	addSeeds(f, setup)
	f.Fuzz(func(t *testing.T, b []byte) {
		ctrl := pair(t, SHA256, GroupNull, setup).ctrl
		failed := false
		for _, msg := range split(b) {
			err := ctrl.Send(msg)
			if failed && err == nil {
				t.Error("a message was taken after a failure")
			}
			failed = failed || err != nil
			got, err := ctrl.Receive()
			if err != nil && !errors.Is(err, ErrNoMessage) || len(got) > BufferSize {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err == nil {
				id, _, err := peek(got)
				if err != nil || failed != (id == idFailure1) {
					t.Errorf("% x, %v; failed %v", got, err, failed)
				}
				if _, err := decode(id, got); err != nil {
					t.Error(err)
				}
			}
			authenticated, over := ctrl.Done()
			if authenticated || over != failed {
				t.Errorf("authenticated %v, over %v, failed %v", authenticated, over, failed)
			}
		}
	})
}

// FuzzHost lets a controller without the keys say anything.
func FuzzHost(f *testing.F) {
	_, _, wrong := testKeys(f)
	setup := func(hc *HostConfig, cc *ControllerConfig) {
		cc.ControllerKey, hc.Rand = wrong, &pseudo{seed: "host"}
		hc.Hashes, hc.Groups = nil, nil
	}
	addSeeds(f, setup)
	f.Fuzz(func(t *testing.T, b []byte) {
		host := pair(t, SHA256, GroupNull, setup).host
		if _, _, err := host.Next(nil); err != nil {
			t.Fatal(err)
		}
		failed := false
		for _, msg := range split(b) {
			send, done, err := host.Next(msg)
			if done || failed && (err == nil || send != nil) {
				t.Errorf("% x, %v, %v; failed before: %v", send, done, err, failed)
			}
			failed = failed || err != nil
			if send != nil {
				id, tid, err := peek(send)
				if err != nil || tid != testTID || failed != (id == idFailure2) {
					t.Errorf("% x, %v; failed %v", send, err, failed)
				}
				if _, err := decode(id, send); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
