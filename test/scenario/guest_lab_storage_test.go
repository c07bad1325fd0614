//go:build linux

package scenario

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/target"
)

// used is how much memory the first namespace of a subsystem takes at the
// target.
func used(g *Guest, lab *target.Target, nqn string) target.Size {
	g.Helper()
	for _, s := range lab.Subsystems() {
		if s.NQN == nqn {
			return s.Namespaces[0].Used
		}
	}
	g.Fatalf("the target has no %s", nqn)
	return 0
}

// Partitions and a file system, whose files outlast an unmount and the target's
// restart.
func labFileSystem(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(1),
	})
	name := connectIOC(g, portA, nqn(0))
	device := g.BlockDevice(nqn(0))
	runInput(g, ",48MiB\n,\n", "sfdisk", "--quiet", "--label=gpt", device)
	part := device + "p1"
	eventually(g, soon, "the partitions appear", func() string {
		if !exists(part) || !exists(device+"p2") {
			return "there are only " + fmt.Sprint(filepath.Glob(device+"*"))
		}
		return ""
	})
	run(g, "mkfs.ext4", "-q", part)

	dir := g.TempDir()
	mount := func() {
		g.Helper()
		run(g, "mount", part, dir)
	}
	g.Cleanup(func() { _ = exec.Command("umount", "--lazy", dir).Run() }) // unless it is done
	files := make(map[string][]byte)
	for i := range 12 {
		data := make([]byte, i*i*20_001)
		_, _ = rand.Read(data) // never fails
		files[filepath.Join(dir, strconv.Itoa(i))] = data
	}
	compare := func(when string) {
		g.Helper()
		for name, want := range files {
			got, err := os.ReadFile(name)
			if err != nil || !bytes.Equal(got, want) {
				g.Errorf("%s, %s differs from what was written, error %v", when, filepath.Base(name), err)
			}
		}
	}
	mount()
	for name, data := range files {
		must(g, os.WriteFile(name, data, 0o644))
	}
	run(g, "umount", dir)
	run(g, "fsck.ext4", "-f", "-n", part)
	mount()
	compare("after an unmount")

	must(g, lab.Restart("", 500*time.Millisecond))
	eventually(g, soon, "the target dies", stateIs(g, name, nvmesysfs.Connecting))
	eventually(g, soon, "the target is back", stateIs(g, name, nvmesysfs.Live))
	writeFile(g, "/proc/sys/vm/drop_caches", "3")
	compare("after a restart of the target")
	run(g, "umount", dir)
	run(g, "fsck.ext4", "-f", "-n", part)

	// All that was written can be given back.
	if used(g, lab, nqn(0)) == 0 {
		g.Error("the target says that nothing was written")
	}
	run(g, "blkdiscard", "--force", device)
	if n := used(g, lab, nqn(0)); n != 0 {
		g.Errorf("after blkdiscard the namespace takes %v", n)
	}
}

// verify writes at random and reads back what is there, by blocks of several
// sizes at a time: each to a part of its own of the first 32 MiB.
func verify(g *Guest, device string, sizes ...int) {
	g.Helper()
	const part, most = 8 << 20, 200
	args := []string{
		"--filename=" + device, "--ioengine=libaio", "--iodepth=8", "--direct=1", "--rw=randwrite",
		"--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
	}
	for i, size := range sizes {
		args = append(args, fmt.Sprintf("--name=%d", size), fmt.Sprintf("--bs=%d", size),
			fmt.Sprintf("--offset=%d", i*part), fmt.Sprintf("--size=%d", min(part, most*size)))
	}
	run(g, "fio", args...)
}

// Blocks of all sizes, through capsules and R2Ts, with digests and without.
func labBlocks(g *Guest) {
	const size = 32 << 20
	small := labListener(portB, target.Discovery{})
	small.MaxH2CData, small.InCapsule = 4096, 2048
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{labListener(portA, target.Discovery{}), small},
		Subsystems: []target.Subsystem{
			{NQN: nqn(0), Namespaces: []target.Namespace{{Size: size}}},
			{NQN: nqn(1), Namespaces: []target.Namespace{{Size: size, BlockSize: 4096}}},
		},
	})
	for _, c := range []struct {
		name, nqn string
		port      Port
		more      string
		sizes     []int
	}{
		{"blocks of 512 bytes", nqn(0), portA, "", []int{512, 4 << 10, 16 << 10, 512 << 10}},
		{"little in a capsule, short H2CData", nqn(0), portB, "", []int{2 << 10, 4 << 10, 256 << 10}},
		{"data digest", nqn(0), portA, ",data_digest", []int{4 << 10, 64 << 10}},
		{"both digests, short H2CData", nqn(0), portB, ",hdr_digest,data_digest", []int{2 << 10, 128 << 10}},
		{"blocks of 4096 bytes", nqn(1), portA, "", []int{4 << 10, 128 << 10}},
		{"one queue without flow control", nqn(1), portA, ",nr_io_queues=1,disable_sqflow", []int{4 << 10, 1 << 20}},
	} {
		began := time.Now()
		name := connect(g, c.port, c.nqn, c.more)
		device := g.BlockDevice(c.nqn)
		verify(g, device, c.sizes...)
		want := "512"
		if c.nqn == nqn(1) {
			want = "4096"
		}
		if got := blockAttr(g, device, "queue/logical_block_size"); got != want {
			g.Errorf("%s: a block has %s bytes, want %s", c.name, got, want)
		}
		if got := blockAttr(g, device, "queue/write_cache"); got != "write back" {
			g.Errorf("%s: the cache is %q, so that nothing is ever flushed", c.name, got)
		}

		// Zeroes, written by command.
		run(g, "dd", "if=/dev/urandom", "of="+device, "bs=1M", "count=2", "oflag=direct", "status=none")
		if used(g, lab, c.nqn) == 0 {
			g.Errorf("%s: the target says that nothing was written", c.name)
		}
		run(g, "blkdiscard", "--zeroout", device)
		if n := used(g, lab, c.nqn); n != 0 {
			g.Errorf("%s: after zeroes were written, the namespace takes %v", c.name, n)
		}
		data, err := os.ReadFile(device)
		if err != nil || len(data) != size || len(bytes.TrimLeft(data, "\x00")) != 0 {
			g.Errorf("%s: %d bytes are read where 32 MiB of zeroes are, error %v", c.name, len(data), err)
		}
		if complaint := stateIs(g, name, nvmesysfs.Live)(); complaint != "" {
			g.Errorf("%s: %s", c.name, complaint)
		}
		run(g, "nvme", "disconnect", "--device="+name)
		g.Logf("%s: %v", c.name, time.Since(began).Round(time.Millisecond))
	}
}

// pathState is the ANA state of a controller's path to the only namespace.
func pathState(g *Guest, controller string) string {
	g.Helper()
	found, err := filepath.Glob("/sys/class/nvme/" + controller + "/nvme*c*n*/ana_state")
	must(g, err)
	if len(found) != 1 {
		return fmt.Sprintf("unknown, there are %d paths", len(found))
	}
	text, _ := os.ReadFile(found[0])
	return strings.TrimSpace(string(text))
}

// pathIO is how many reads and writes a controller's path has completed.
func pathIO(g *Guest, controller string) int {
	g.Helper()
	found, err := filepath.Glob("/sys/class/nvme/" + controller + "/nvme*c*n*/stat")
	must(g, err)
	if len(found) != 1 {
		g.Fatalf("%s has %d paths", controller, len(found))
	}
	text, err := os.ReadFile(found[0])
	must(g, err)
	fields := strings.Fields(string(text))
	reads, _ := strconv.Atoi(fields[0])
	writes, _ := strconv.Atoi(fields[4])
	return reads + writes
}

// Two paths to a namespace: I/O goes where the ANA states say, while fio looks
// that nothing is lost; then one path after the other dies.
func labMultipath(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{}), labListener(portB, target.Discovery{})},
		Subsystems: labSubsystems(1),
	})
	a, b := connectIOC(g, portA, nqn(0)), connectIOC(g, portB, nqn(0))
	device := g.BlockDevice(nqn(0))
	states := func(wantA, wantB nvme.ANAState) func() string {
		return func() string {
			if gotA, gotB := pathState(g, a), pathState(g, b); gotA != wantA.String() || gotB != wantB.String() {
				return fmt.Sprintf("the paths are %s and %s, want %v and %v", gotA, gotB, wantA, wantB)
			}
			return ""
		}
	}
	// only complains unless all I/O of some time goes by one path.
	only := func(by, notBy string) {
		g.Helper()
		g.Sleep(500 * time.Millisecond) // what is on the way
		before, idle := pathIO(g, by), pathIO(g, notBy)
		run(g, "dd", "if="+device, "of=/dev/null", "bs=4k", "count=50", "iflag=direct", "status=none")
		if did, other := pathIO(g, by)-before, pathIO(g, notBy)-idle; did < 50 || other != 0 {
			g.Errorf("%d reads and writes went by %s, and %d by %s", did, by, other, notBy)
		}
	}
	set := func(p Port, s nvme.ANAState) {
		g.Helper()
		must(g, lab.SetANA(nqn(0), target.ANA{Listener: labName(p), State: s}))
	}
	verified := fioFor(g, device, 20*time.Second)
	eventually(g, soon, "connected", states(nvme.ANAOptimized, nvme.ANAOptimized))
	set(portA, nvme.ANAInaccessible)
	eventually(g, soon, "one path is inaccessible", states(nvme.ANAInaccessible, nvme.ANAOptimized))
	only(b, a)
	set(portA, nvme.ANAOptimized)
	set(portB, nvme.ANANonOptimized)
	eventually(g, soon, "the other is not optimized", states(nvme.ANAOptimized, nvme.ANANonOptimized))
	only(a, b)
	set(portA, nvme.ANAPersistentLoss)
	eventually(g, soon, "the first is lost for good", states(nvme.ANAPersistentLoss, nvme.ANANonOptimized))
	only(b, a)
	set(portA, nvme.ANAOptimized)
	set(portB, nvme.ANAOptimized)
	eventually(g, soon, "both are optimized", states(nvme.ANAOptimized, nvme.ANAOptimized))
	for _, p := range []Port{portA, portB} {
		dies, stays := a, b
		if p == portB {
			dies, stays = b, a
		}
		must(g, lab.Restart(labName(p), 1500*time.Millisecond))
		eventually(g, soon, "a path dies", stateIs(g, dies, nvmesysfs.Connecting))
		if complaint := stateIs(g, stays, nvmesysfs.Live)(); complaint != "" {
			g.Error(complaint)
		}
		eventually(g, soon, "the path is back", stateIs(g, dies, nvmesysfs.Live))
	}
	eventually(g, soon, "both are optimized again", states(nvme.ANAOptimized, nvme.ANAOptimized))
	verified()
}
