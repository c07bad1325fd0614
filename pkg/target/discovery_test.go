package target

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// twoListeners is a target with a CDC that knows of everything, and a direct
// discovery controller beside it.
func twoListeners() Config {
	return Config{
		Listeners: []Listener{
			{Name: "cdc", Address: address, Discovery: Discovery{
				Type: CDC, NQN: cdcNQN, Flags: EntryFlags{EPCSD: true},
				Referrals: []Referral{{Address: "[fd00::1]:8010", NQN: nqnC, PortID: 7, Flags: EntryFlags{DUPRETINFO: true}}},
			}},
			{Name: "direct", Address: "127.0.0.1:4420"},
		},
		Subsystems: []Subsystem{
			{NQN: nqnA, Label: "database"},
			{NQN: nqnB, Listeners: []string{"direct"}, NCC: true},
		},
	}
}

func TestDiscoveryLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoListeners())
		c := r.host(t, 1, "")
		log := readLog(t, c, 0)
		equal(t, "the CDC lists", listed(log), []string{"discovery@1", "referral@7", "a@1", "a@2", "b@2"})
		self, referral, b := log.Entries[0], log.Entries[1], log.Entries[4]
		if self.SubNQN != cdcNQN || !self.EFlags.EPCSD() || self.TrAddr != "127.0.0.1" || self.TrSvcID != "8009" || self.AdrFam != nvme.FamilyIPv4 {
			t.Errorf("the entry of the CDC itself: %+v", self)
		}
		if referral.SubNQN != nqnC || referral.TrAddr != "fd00::1" || referral.AdrFam != nvme.FamilyIPv6 || !referral.EFlags.DUPRETINFO() {
			t.Errorf("the referral: %+v", referral)
		}
		if !b.EFlags.NCC() || b.TrSvcID != "4420" || b.CntlID != nvme.CntlIDDynamic {
			t.Errorf("subsystem b: %+v", b)
		}
		equal(t, "of its own port", listed(readLog(t, c, nvme.LSPPortLocal)), []string{"discovery@1", "a@1"})

		direct := r.host(t, 1, "", func(o *initiator.Options) { o.Address = "127.0.0.1:4420" })
		equal(t, "the DDC lists", listed(readLog(t, direct, 0)), []string{"discovery@2", "a@2", "b@2"})
	})
}

func TestDiscoveryIdentity(t *testing.T) {
	for _, tc := range []struct {
		kind   DiscoveryType
		ctrl   nvme.ControllerType
		dctype nvme.DCType
	}{
		{DDC, nvme.ControllerDiscovery, nvme.DCTypeDDC},
		{CDC, nvme.ControllerDiscovery, nvme.DCTypeCDC},
		{Untyped, nvme.ControllerUnknown, nvme.DCTypeNone},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{Listeners: []Listener{{Address: address, Discovery: Discovery{Type: tc.kind, NQN: cdcNQN}}}})
			for _, name := range []string{"", cdcNQN} {
				id := r.host(t, 1, name).Identity()
				if id.CntrlType != tc.ctrl || id.DCType != tc.dctype || id.SubNQN != cdcNQN || id.OAES != nvme.AENConfigDiscovery {
					t.Errorf("%s by %q: %+v", tc.kind, name, id)
				}
			}
		})
	}
}

// TestLogPageOptions: what Supported Log Pages says is what can be asked for.
func TestLogPageOptions(t *testing.T) {
	for _, tc := range []struct {
		d    Discovery
		want uint8
	}{
		{Discovery{}, nvme.LSPExtended | nvme.LSPPortLocal | nvme.LSPAllSubsystems},
		{Discovery{NoPLEO: true}, nvme.LSPExtended | nvme.LSPAllSubsystems},
		{Discovery{NoExtended: true}, nvme.LSPPortLocal | nvme.LSPAllSubsystems},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{Listeners: []Listener{{Address: address, Discovery: tc.d}}})
			c := r.host(t, 1, "")
			page := make([]byte, nvme.SupportedLogPagesSize)
			if err := c.GetLogPage(nvme.LogSupportedPages, 0, false, 0, page); err != nil {
				t.Fatal(err)
			}
			if lsp := nvme.LogPageSupported(page, nvme.LogDiscovery).LSP(); lsp != tc.want {
				t.Errorf("%+v: LSP %#x, want %#x", tc.d, lsp, tc.want)
			}
			if nvme.LogPageSupported(page, nvme.LogANA).Supported() {
				t.Error("a discovery controller claims an ANA log")
			}
			for lsp := range uint8(8) {
				err := c.GetLogPage(nvme.LogDiscovery, lsp, false, 0, make([]byte, 1024))
				if (err == nil) != (lsp&^tc.want == 0) {
					t.Errorf("%+v: LSP %#x: %v", tc.d, lsp, err)
				}
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Listeners: []Listener{{Address: address, Discovery: Discovery{Type: Untyped}}}})
		err := r.host(t, 1, "").GetLogPage(nvme.LogSupportedPages, 0, false, 0, make([]byte, 1024))
		if !is(err, nvme.StatusInvalidLogPage) {
			t.Errorf("an untyped controller: %v", err)
		}
	})
}

// TestExtendedEntries walks a log of entries that carry attributes.
func TestExtendedEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoListeners())
		c := r.host(t, 1, "")
		head := make([]byte, nvme.LogHeaderSize)
		if err := c.GetLogPage(nvme.LogDiscovery, nvme.LSPExtended, false, 0, head); err != nil {
			t.Fatal(err)
		}
		h, err := nvme.DecodeLogHeader(head)
		if err != nil || h.Flags&nvme.LSPExtended == 0 || h.NumRec != 5 {
			t.Fatalf("%+v, %v", h, err)
		}
		body := make([]byte, h.Length-nvme.LogHeaderSize)
		if err := c.GetLogPage(nvme.LogDiscovery, nvme.LSPExtended, false, nvme.LogHeaderSize, body); err != nil {
			t.Fatal(err)
		}
		var names []string
		for len(body) > 0 {
			e, size, err := nvme.DecodeExtendedEntry(body)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, e.Entry.SubType.String()+" "+e.SymbolicName())
			body = body[size:]
		}
		equal(t, "entries", names, []string{"discovery ", "referral ", "nvme database", "nvme database", "nvme "})
	})
}

// TestAnyPartOfTheLog: whatever part is asked for, it is that part.
func TestAnyPartOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoListeners())
		c := r.host(t, 1, "")
		whole := make([]byte, 7*1024) // 5 entries, and beyond
		if err := c.GetLogPage(nvme.LogDiscovery, 0, false, 0, whole); err != nil {
			t.Fatal(err)
		}
		for offset := 0; offset < len(whole); offset += 252 {
			for _, length := range []int{4, 20, 1024, 2500} {
				length = min(length, len(whole)-offset)
				got := make([]byte, length)
				if err := c.GetLogPage(nvme.LogDiscovery, 0, false, uint64(offset), got); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, whole[offset:offset+length]) {
					t.Fatalf("%d bytes at %d differ", length, offset)
				}
			}
		}
		if err := c.GetLogPage(nvme.LogDiscovery, 0, false, 1<<40, make([]byte, 8)); err != nil {
			t.Errorf("beyond the end: %v", err)
		}
	})
}

// events collects what a host is told.
func events(t *testing.T, c *initiator.Controller) func() []nvme.AEN {
	t.Helper()
	ch, err := c.AsyncEvents(t.Context(), nvme.AENConfigDiscovery)
	if err != nil {
		t.Fatal(err)
	}
	return func() (all []nvme.AEN) {
		synctest.Wait()
		for {
			select {
			case e, ok := <-ch:
				if !ok {
					return all
				}
				all = append(all, e)
				synctest.Wait()
			default:
				return all
			}
		}
	}
}

// TestEvents: a change is told once until the log has been read.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoListeners())
		c := r.host(t, 1, "")
		told := events(t, c)
		changed := []nvme.AEN{nvme.DiscoveryLogChanged}
		must(t, r.AddSubsystem(Subsystem{NQN: nqnC}))
		equal(t, "after one change", told(), changed)
		must(t, r.RemoveSubsystem(nqnA))
		equal(t, "after another one, unread", told(), nil)
		head := make([]byte, 20)
		must(t, c.GetLogPage(nvme.LogDiscovery, 0, true, 0, head))
		must(t, r.Withdraw(nqnC))
		equal(t, "after reading with RAE", told(), nil)
		equal(t, "the log", listed(readLog(t, c, 0)), []string{"discovery@1", "referral@7", "b@2"})
		must(t, r.Offer(nqnC))
		equal(t, "after reading it", told(), changed)
		before := readLog(t, c, 0).GenCtr
		must(t, r.SetANA(nqnB, ANA{State: nvme.ANAInaccessible}))
		must(t, r.SetHost(Host{NQN: hostNQN(9)}))
		equal(t, "after changes that no log shows", told(), nil)
		if after := readLog(t, c, 0).GenCtr; after != before {
			t.Errorf("GENCTR went from %d to %d, nothing has changed", before, after)
		}
	})
}

// TestEventWaits: a change while no request is outstanding is told with the
// next one.
func TestEventWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoListeners())
		c := r.host(t, 1, "", func(o *initiator.Options) { o.KATO = 0 })
		must(t, r.AddSubsystem(Subsystem{NQN: nqnC})) // not yet enabled
		if _, err := c.SetFeatures(t.Context(), nvme.FeatureAsyncEvents, nvme.AENConfigDiscovery, nil); err != nil {
			t.Fatal(err)
		}
		must(t, r.RemoveSubsystem(nqnC))
		equal(t, "with the first request", events(t, c)(), []nvme.AEN{nvme.DiscoveryLogChanged})
	})
}

// TestZoning: every host sees its own log, and is told of its own changes.
func TestZoning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := twoListeners()
		config.Zoning = Zoning{Enabled: true, Groups: []ZoneGroup{
			{Name: "one", Hosts: []string{hostNQN(1)}, Subsystems: []string{nqnA}},
			{Name: "both", Hosts: []string{hostNQN(1), hostNQN(2)}, Subsystems: []string{nqnB, "nqn.not.there"}},
		}}
		r := newRig(t, config)
		c1, c2, c3 := r.host(t, 1, ""), r.host(t, 2, ""), r.host(t, 3, "")
		told1, told2, told3 := events(t, c1), events(t, c2), events(t, c3)
		always := []string{"discovery@1", "referral@7"}
		equal(t, "host 1", listed(readLog(t, c1, 0)), append(always, "a@1", "a@2", "b@2"))
		equal(t, "host 2", listed(readLog(t, c2, 0)), append(always, "b@2"))
		equal(t, "host 3", listed(readLog(t, c3, 0)), always)
		equal(t, "host 3, all subsystems", listed(readLog(t, c3, nvme.LSPAllSubsystems)), []string{"discovery@1", "referral@7", "a@1", "a@2", "b@2"})

		gen1 := readLog(t, c1, 0).GenCtr
		must(t, r.SetZoneGroup(ZoneGroup{Name: "two", Hosts: []string{hostNQN(2)}, Subsystems: []string{nqnA}}))
		equal(t, "host 1 is told", told1(), nil)
		equal(t, "host 2 is told", told2(), []nvme.AEN{nvme.DiscoveryLogChanged})
		equal(t, "host 3 is told", told3(), nil)
		equal(t, "host 2 then", listed(readLog(t, c2, 0)), append(always, "a@1", "a@2", "b@2"))
		if gen := readLog(t, c1, 0).GenCtr; gen != gen1 {
			t.Errorf("the generation of host 1 went from %d to %d", gen1, gen)
		}
		must(t, r.RemoveZoneGroup("both"))
		equal(t, "host 1 is told", told1(), []nvme.AEN{nvme.DiscoveryLogChanged})
		equal(t, "host 1 without it", listed(readLog(t, c1, 0)), append(always, "a@1", "a@2"))
		must(t, r.SetZoning(Zoning{}))
		equal(t, "host 3 without zoning", listed(readLog(t, c3, 0)), append(always, "a@1", "a@2", "b@2"))
	})
}

// TestAllowedHosts: who may not connect is not told either.
func TestAllowedHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{
			Listeners:  []Listener{{Address: address}},
			Subsystems: []Subsystem{{NQN: nqnA, Hosts: []string{hostNQN(1)}}},
		})
		equal(t, "host 1", listed(readLog(t, r.host(t, 1, ""), 0)), []string{"discovery@1", "a@1"})
		equal(t, "host 2", listed(readLog(t, r.host(t, 2, ""), 0)), []string{"discovery@1"})
		r.host(t, 1, nqnA)
		if _, err := r.dial(t, 2, nqnA); !is(err, nvme.StatusConnectInvalidHost) {
			t.Errorf("host 2: %v", err)
		}
	})
}

// registrationOf is what a host says of itself (Base, "Host registration").
func registrationOf(n int) nvme.DiscoveryInformation {
	return nvme.DiscoveryInformation{
		Format: nvme.EntryExtended, EntityType: nvme.EntityHost, KeyType: nvme.KeyAddress,
		EID: hostNQN(n), Name: "box", Version: "Linux",
		Entries: []nvme.ExtendedEntry{{
			Entry:      nvme.DiscoveryLogEntry{TrType: nvme.TCP, AdrFam: nvme.FamilyIPv4, SubNQN: hostNQN(n)},
			Attributes: []nvme.Attribute{nvme.HostIDAttribute(nvme.HostID{1, 15: byte(n)}), nvme.SymbolicName("rack 7")},
		}},
	}
}

func TestRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := twoListeners()
		config.Zoning.Registered = true
		r := newRig(t, config)
		c := r.host(t, 1, "")
		told := events(t, c)
		equal(t, "before it has registered", listed(readLog(t, c, 0)), []string{"discovery@1", "referral@7"})
		time.Sleep(time.Hour / 60)
		must(t, c.ManageDiscovery(t.Context(), registrationOf(1)))
		equal(t, "told", told(), []nvme.AEN{nvme.DiscoveryLogChanged})
		equal(t, "after", len(readLog(t, c, 0).Entries), 5)
		hosts := r.Hosts()
		want := []HostInfo{{
			NQN: hostNQN(1), ID: nvme.HostID{15: 1, 0: 1}.String(), Connections: 1, Registered: time.Now(),
			Name: "box", SymbolicName: "rack 7", Software: "Linux", Address: "pipe", Listener: "cdc",
		}}
		equal(t, "hosts", hosts, want)

		again := registrationOf(1)
		again.Entries[0].Attributes[1] = nvme.SymbolicName("rack 8")
		must(t, c.ManageDiscovery(t.Context(), again))
		equal(t, "renamed", r.Hosts()[0].SymbolicName, "rack 8")

		update := registrationOf(1)
		update.Task = nvme.TaskUpdate
		update.Entries = append(update.Entries, registrationOf(1).Entries[0])
		update.Entries[0].Entry.TrAddr = "192.0.2.1" // only one may leave it to the connection
		update.Entries[1].Attributes[1] = nvme.SymbolicName("rack 9")
		must(t, c.ManageDiscovery(t.Context(), update))
		equal(t, "updated", r.Hosts()[0].SymbolicName, "rack 9")

		gone := registrationOf(1)
		gone.Task = nvme.TaskDeregister
		must(t, c.ManageDiscovery(t.Context(), gone))
		equal(t, "deregistered", listed(readLog(t, c, 0)), []string{"discovery@1", "referral@7"})
	})
}

// TestRegistrationRefused: every status that the specification has for it.
func TestRegistrationRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		r      Registration
		edit   func(*nvme.DiscoveryInformation)
		status nvme.Status
	}{
		{"unknown command", Registration{Off: true}, nil, nvme.StatusInvalidOpcode},
		{"disabled", Registration{Disabled: true}, nil, nvme.StatusRequestedFunctionDisabled},
		{"locked", Registration{Locked: true}, nil, nvme.StatusZoningDataStructureLocked},
		{"full", Registration{Max: 1}, nil, nvme.StatusInsufficientDiscovery},
		{"no host", Registration{}, func(d *nvme.DiscoveryInformation) { d.EntityType = nvme.EntityDDC }, nvme.StatusInvalidDiscoveryInformation},
		{"no attributes", Registration{}, func(d *nvme.DiscoveryInformation) { d.Entries[0].Attributes = nil }, nvme.StatusInvalidDiscoveryInformation},
		{"update by one", Registration{}, func(d *nvme.DiscoveryInformation) { d.Task = nvme.TaskUpdate }, nvme.StatusInvalidField},
		{"no entries", Registration{}, func(d *nvme.DiscoveryInformation) { d.Entries = nil }, nvme.StatusInvalidField},
		{"port local", Registration{}, func(d *nvme.DiscoveryInformation) { d.PortLocal = true }, nvme.StatusInvalidField},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{Listeners: []Listener{{Address: address, Discovery: Discovery{Type: CDC, Registration: tc.r}}}})
				c := r.host(t, 2, "")
				if tc.r.Max == 1 {
					must(t, c.ManageDiscovery(t.Context(), registrationOf(1)))
				}
				d := registrationOf(2)
				if tc.edit != nil {
					tc.edit(&d)
				}
				if err := c.ManageDiscovery(t.Context(), d); !is(err, tc.status) {
					t.Errorf("%v, want %v", err, tc.status)
				}
			})
		})
	}
}
