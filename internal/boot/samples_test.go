package boot

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nbft"
)

// samples is where tables of real firmwares are, with what is expected of each.
// They are no part of the product.
const samples = "../../../shared/nbft"

// expected are the discovery controllers of a table on a host with interfaces,
// by address.
type expected struct {
	Interfaces map[string]string
	Expect     struct{ DCs []map[string]string }
}

// TestSamples compares with what nvme-stas derives from the tables.
func TestSamples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(samples, "expected.json"))
	if err != nil {
		t.Skip("no sample tables: ", err)
	}
	var all []struct {
		File    string
		Valid   bool
		Without expected `json:"controllers"`
		With    expected `json:"controllers_with_interfaces"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, sample := range all {
		for _, host := range []expected{sample.Without, sample.With} {
			t.Run(sample.File, func(t *testing.T) {
				table, err := os.ReadFile(filepath.Join(samples, sample.File))
				if err != nil {
					t.Fatal(err)
				}
				s := Source{Dir: t.TempDir(), Links: func() (links []Link, _ error) {
					for mac, name := range host.Interfaces {
						links = append(links, Link{Name: name, MAC: parseMAC(t, mac)})
					}
					return links, nil
				}}
				put(t, s.Dir, "NBFT", table)
				tables, _ := s.Read()
				if (len(tables.Names) == 1) != sample.Valid || tables.Unread {
					t.Errorf("tables %v, want a valid one: %v; unread: %v", tables.Names, sample.Valid, tables.Unread)
				}
				got, want := []string{}, []string{}
				for _, c := range tables.Discovery {
					got = append(got, spell(c.ID))
				}
				for _, c := range host.Expect.DCs {
					want = append(want, spell(tid.New(tid.TID{
						Transport: c["transport"], TrAddr: c["traddr"], TrSvcID: c["trsvcid"], SubsysNQN: c["subsysnqn"],
						HostIface: c["host-iface"], HostNQN: c["host-nqn"],
					})))
				}
				slices.Sort(got)
				slices.Sort(want)
				if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func spell(id tid.TID) string { return id.String() + " " + id.HostNQN }

func parseMAC(t *testing.T, text string) nbft.MAC {
	t.Helper()
	mac, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return nbft.MAC(mac)
}
