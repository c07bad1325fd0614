package target

import (
	"io"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// session is what a host sends that behaves: enough for mutations to reach all
// commands.
func session(subNQN string, more ...nvmetcp.PDU) []byte {
	return sessionOf(subNQN, 5*time.Second, more...)
}

// sessionKATO is a host that connects to discovery and is not heard of again.
func sessionKATO(kato time.Duration) []byte { return sessionOf(nvme.WellKnownDiscoveryNQN, kato) }

func sessionOf(subNQN string, kato time.Duration, more ...nvmetcp.PDU) []byte {
	conn := nvmetcp.NewConn(nil, nvmetcp.Host, nvmetcp.Limits{})
	data, err := nvme.ConnectData{CntlID: dynamicCntlID, SubNQN: subNQN, HostNQN: "nqn.2026-11.org.example:host"}.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	connect := nvme.Connect{SQSize: adminQueueSize - 1, KATO: kato}.Command()
	pdus := []nvmetcp.PDU{
		nvmetcp.ICReq{},
		nvmetcp.CapsuleCmd{Cmd: connect, Data: data},
		nvmetcp.CapsuleCmd{Cmd: nvme.PropertySet(nvme.Property{Offset: nvme.PropCC, Value: nvme.CCEntrySizes | nvme.CCEnable})},
	}
	return conn.Append(nil, append(pdus, more...)...)
}

func capsule(cmd nvme.Command, size uint32) nvmetcp.PDU {
	cmd.SGL = nvme.InTransport(size)
	return nvmetcp.CapsuleCmd{Cmd: cmd}
}

// FuzzTarget has a host say anything at all: the target must stay alive, hold
// no more than it may, and let the connection go.
func FuzzTarget(f *testing.F) {
	const nqn = "nqn.2026-11.org.example:a"
	log, err := nvme.GetLogPage{LID: nvme.LogDiscovery, Offset: 1024, Length: 2048}.Command()
	if err != nil {
		f.Fatal(err)
	}
	io512 := nvme.Command{Opcode: nvme.OpWrite, NSID: 1, CDW12: 31}
	for _, seed := range [][]byte{
		session(nvme.WellKnownDiscoveryNQN, capsule(nvme.Identify{CNS: nvme.CNSController}.Command(), 4096), capsule(log, 2048)),
		session(nvme.WellKnownDiscoveryNQN, capsule(nvme.Command{Opcode: nvme.OpAsyncEventRequest}, 0), capsule(nvme.SetFeatures(nvme.FeatureAsyncEvents, 1<<31), 0)),
		session(nvme.WellKnownDiscoveryNQN, capsule(nvme.Command{Opcode: nvme.OpDiscoveryInfoMgmt}, 2076), nvmetcp.Data{CID: 0, TTAG: 0, Data: make([]byte, 2076), Last: true}),
		session(nqn, capsule(nvme.Identify{CNS: nvme.CNSNamespace, NSID: 1}.Command(), 4096), capsule(nvme.SetFeatures(nvme.FeatureNumberOfQueues, 0x30003), 0)),
		session(nqn, capsule(io512, 16384), nvmetcp.Data{Data: make([]byte, 16384), Last: true}),
		session(nqn, nvmetcp.TermReq{FES: 1}),
		[]byte("GET / HTTP/1.0\r\n\r\n"),
	} {
		f.Add(seed)
	}
	r := newRig(f, Config{
		Listeners:  []Listener{{Name: "a", Address: "127.0.0.1:8009", Discovery: Discovery{Type: CDC}}},
		Subsystems: []Subsystem{{NQN: nqn, Namespaces: []Namespace{{Size: 1 << 20}}}},
	})
	f.Fuzz(func(t *testing.T, stream []byte) {
		nc, err := r.network.dial(t.Context(), "tcp", "127.0.0.1:8009")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		gone := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, nc)
			close(gone)
		}()
		_, _ = nc.Write(stream) // the target may have had enough before its end
		nc.Close()
		<-gone
	})
	f.Cleanup(func() {
		for deadline := time.Now().Add(10 * time.Second); len(r.Connections()) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				f.Fatalf("associations that stay: %+v", r.Connections())
			}
		}
		if n := len(r.Subsystems()); n != 1 {
			f.Errorf("%d subsystems", n)
		}
	})
}
