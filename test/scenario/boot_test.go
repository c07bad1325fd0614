package scenario

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the files that are made by the tests")

// TestBootTableFile keeps the boot table that a guest gets with -nbft the one
// of the cases.
func TestBootTableFile(t *testing.T) {
	if _, err := os.Stat("testdata"); err != nil && !*update {
		t.Skip("the files are elsewhere: ", err) // in the guest
	}
	want, err := BootTable().AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "NBFT")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, string(want))
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v; go test ./test/scenario -run BootTableFile -update writes it anew", err)
	}
}
