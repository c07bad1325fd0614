package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// browsingStafd tells of what is announced, of one thing after the other.
type browsingStafd struct {
	*stafd
	answers []stasbus.Browse
}

func (d *browsingStafd) Browse(context.Context) (stasbus.Browse, error) {
	b := d.answers[0]
	if len(d.answers) > 1 {
		d.answers = d.answers[1:]
	}
	return b, nil
}

// announced has one service in each situation.
func announced() stasbus.Browse {
	service := func(name, iface, family string, addresses ...stasbus.AnnouncedAddress) stasbus.Announcement {
		return stasbus.Announcement{
			Instance: name, Type: "_nvme-disc._tcp", Host: "array.local", Iface: iface, Family: family, Port: 8009, TXT: []string{"p=tcp"},
			Since: now.Add(-time.Hour), Confirmed: true, Addresses: addresses,
		}
	}
	at := func(addr, iface, refused string, c *stasbus.Controller) stasbus.AnnouncedAddress {
		id := id(addr, "8009", dcNQN, iface)
		if c != nil {
			c.ID = id
		}
		return stasbus.AnnouncedAddress{Address: addr, ID: &id, Refused: refused, Controller: c}
	}
	live := func() *stasbus.Controller { return &stasbus.Controller{Device: "nvme0", State: "live", Wanted: true} }
	waiting := &stasbus.Controller{
		State: "waiting", Wanted: true, Probe: &stasbus.Probe{Time: now},
		Connect: &stasbus.Failure{Attempts: 2, Error: "connect: connection refused (nothing listens)", Next: now.Add(3 * time.Second)},
	}
	lost := service("lost", "eth1", "IPv6", at("fe80::1%eth1", "eth1", "", &stasbus.Controller{Device: "nvme7", State: "connecting", Wanted: true}))
	lost.Confirmed = false
	wrong := service("wrong", "eth1", "IPv4", stasbus.AnnouncedAddress{Address: "10.0.0.9"})
	wrong.Wrong, wrong.TXT = "its TXT record does not tell the transport", []string{"\x1b[31m"}
	return stasbus.Browse{
		Version: 1, Time: now, Mode: "auto", Listening: true, Services: []stasbus.Announcement{
			service("array 1", "eth0", "IPv4", at("10.0.0.1", "eth0", "", live()), at("10.0.0.2", "eth0", "stafd.conf:3 excludes traddr=10.0.0.2", nil)),
			service("array 1", "eth0", "IPv6", at("10.0.0.1", "eth0", "", live())),
			service("array 2", "eth1", "IPv4", at("10.0.1.1", "eth1", "", waiting)),
			lost, wrong,
			service("new", "eth1", "IPv4", at("10.0.1.2", "eth1", "", nil)),
		},
	}
}

func TestBrowse(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	d := &browsingStafd{stafd: newStafd(), answers: []stasbus.Browse{announced()}}
	serve(t, stasbus.Staf, d)
	const table = `
INSTANCE  IFACE  VIA         ADDRESS                  NQN                                   ANSWERS  STATE
array 1   eth0   IPv4, IPv6  tcp 10.0.0.1:8009        nqn.2014-08.org.nvmexpress.discovery  yes      connected as nvme0
array 1   eth0   IPv4        tcp 10.0.0.2:8009        nqn.2014-08.org.nvmexpress.discovery  -        not connected: stafd.conf:3 excludes traddr=10.0.0.2
array 2   eth1   IPv4        tcp 10.0.1.1:8009        nqn.2014-08.org.nvmexpress.discovery  no       not connected: connection refused, next try in 3s
lost      eth1   IPv6        tcp [fe80::1%eth1]:8009  nqn.2014-08.org.nvmexpress.discovery  no       nvme7 is connecting (not heard of at present)
wrong     eth1   IPv4        10.0.0.9:8009            -                                     -        of no use: its TXT record does not tell the transport
new       eth1   IPv4        tcp 10.0.1.2:8009        nqn.2014-08.org.nvmexpress.discovery  -        about to be connected
`
	for _, args := range [][]string{{"browse", "-o", "table"}, {"browse"}} { // nvme-stas has no such command
		if code, out, stderr := call(Stafctl, args...); code != 0 || stderr != "" || cmp.Diff(strings.TrimPrefix(table, "\n"), out) != "" {
			t.Errorf("%q: %d %s %s", args, code, stderr, cmp.Diff(strings.TrimPrefix(table, "\n"), out))
		}
	}
	_, wide, _ := call(Stafctl, "browse", "-o", "wide")
	for _, want := range []string{"TXT", "SINCE", "1h00m", "array.local", "_nvme-disc._tcp"} {
		if !strings.Contains(wide, want) {
			t.Errorf("%q is not in the wide table:\n%s", want, wide)
		}
	}
	for _, out := range []string{wide} {
		if strings.Contains(out, "\x1b") {
			t.Error("a target speaks to the terminal")
		}
	}
	_, text, _ := call(Stafctl, "browse", "-o", "json")
	var got stasbus.Browse
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(announced(), got); diff != "" {
		t.Error(diff)
	}
	if _, yaml, _ := call(Stafctl, "browse", "-o", "yaml"); !strings.Contains(yaml, "instance: array 1") {
		t.Errorf("YAML is\n%s", yaml)
	}
}

func TestBrowseNothing(t *testing.T) {
	for _, c := range []struct {
		mode      string
		listening bool
		want      string
	}{
		{"auto", true, "Nothing is announced"},
		{"auto", false, "Nobody listens at present"},
		{"avahi", false, "systemctl status avahi-daemon"},
		{stasbus.Disabled, false, "zeroconf=disabled"},
	} {
		var out bytes.Buffer
		tool := &tool{stdout: &out, output: output.Table}
		if err := tool.printBrowse(stasbus.Browse{Mode: c.mode, Listening: c.listening}); err != nil || strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), c.want) {
			t.Errorf("%+v: %s %v", c, out.String(), err)
		}
	}
}

func TestBrowseOldDaemon(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Staf, &newStafd().oldStafd)
	if code, _, stderr := call(Stafctl, "browse"); code != 1 || !strings.Contains(stderr, "nvme-stas 2.x") {
		t.Errorf("%d %s", code, stderr)
	}
}

// What changes is told, and what only goes on is not.
func TestBrowseFollow(t *testing.T) {
	first := announced()
	first.Services = first.Services[2:3]
	for _, c := range []struct {
		name   string
		change func(*stasbus.Browse)
		want   string
	}{
		{"nothing", func(*stasbus.Browse) {}, ""},
		{"another attempt", func(b *stasbus.Browse) {
			c := b.Services[0].Addresses[0].Controller
			c.Connect.Attempts, c.Connect.Next, c.State, c.Probe = 9, now.Add(time.Hour), "connecting", &stasbus.Probe{Time: now.Add(time.Minute), Took: 3}
		}, ""},
		{"connected", func(b *stasbus.Browse) {
			c := b.Services[0].Addresses[0].Controller
			c.Connect, c.State, c.Device = nil, "live", "nvme3"
		}, `11:00:01 changed "array 2" on eth1 by IPv4 at tcp 10.0.1.1:8009: connected as nvme3`},
		{"gone", func(b *stasbus.Browse) { b.Services = nil }, `11:00:01 removed "array 2" on eth1 by IPv4 at tcp 10.0.1.1:8009`},
		{"another", func(b *stasbus.Browse) { b.Services = append(b.Services, announced().Services[5]) },
			`11:00:01 added   "new" on eth1 by IPv4 at tcp 10.0.1.2:8009: about to be connected`},
		{"nobody listens", func(b *stasbus.Browse) { b.Listening = false }, "11:00:01 Nobody listens at present; why: journalctl -u stafd."},
		{"another way", func(b *stasbus.Browse) { b.Mode = "embedded" }, "11:00:01 stafd browses (mdns=embedded)."},
	} {
		next := announced()
		next.Services, next.Time = next.Services[2:3], now.Add(time.Second)
		c.change(&next)
		var out bytes.Buffer
		tool := &tool{stdout: &out, output: output.Table}
		for _, ch := range changes(first, next) {
			if err := tool.printChange(ch); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.TrimSuffix(out.String(), "\n"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Programs get a JSON document in each line.
func TestBrowseFollowJSON(t *testing.T) {
	var out bytes.Buffer
	tool := &tool{stdout: &out, output: output.JSON}
	for _, c := range changes(stasbus.Browse{}, announced()) {
		if err := tool.printChange(c); err != nil {
			t.Fatal(err)
		}
	}
	dec := json.NewDecoder(&out)
	n := 0
	for ; ; n++ {
		var c change
		if err := dec.Decode(&c); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if (c.Service == nil) != (c.Change == browsing) {
			t.Errorf("%+v", c)
		}
	}
	if want := 1 + len(announced().Services); n != want {
		t.Errorf("%d changes, want %d", n, want)
	}
}
