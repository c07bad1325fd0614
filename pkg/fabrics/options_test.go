package fabrics

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// everything is what a kernel supports that supports everything.
func everything() OptionSet {
	var names []string
	for _, o := range options {
		names = append(names, o.name)
	}
	return NewOptionSet(names...)
}

func without(set OptionSet, names ...string) OptionSet {
	left := slices.DeleteFunc(slices.Clone(set.names), func(n string) bool { return slices.Contains(names, n) })
	return NewOptionSet(left...)
}

const (
	testNQN  = "nqn.2014-08.org.example:a"
	testHost = "nqn.2014-08.org.nvmexpress:uuid:427a2ee6-5386-11ec-8b8b-c85b7670fcd5"
	testID   = "427a2ee6-5386-11ec-8b8b-c85b7670fcd5"
	nnpn     = "nn-0x1:pn-0x2"
)

// fullOptions sets every field. It is not a sensible connection.
func fullOptions() Options {
	return Options{
		Transport: "tcp", TrAddr: "fe80::1%eth0", TrSvcID: "4420", NQN: testNQN, HostNQN: testHost, HostID: testID,
		HostTrAddr: "fe80::2", HostIface: "eth0", Discovery: true,
		KeepAliveTMO: new(0), QueueSize: new(16), NrIOQueues: new(0), NrWriteQueues: new(1), NrPollQueues: new(2),
		ReconnectDelay: new(3), CtrlLossTMO: new(-1), FastIOFailTMO: new(4), TOS: new(0),
		DisableSQFlow: true, HdrDigest: true, DataDigest: true, DuplicateConnect: true, TLS: true, Concat: true,
		Keyring: new(int32(5)), TLSKey: new(int32(6)), DHChapSecret: NewSecret(hostKey), DHChapCtrlSecret: NewSecret(ctrlKey),
	}
}

func TestEncode(t *testing.T) {
	tcp := Options{Transport: "tcp", TrAddr: "192.0.2.1", NQN: testNQN}
	with := func(o Options, change func(*Options)) Options { change(&o); return o }
	const base = "nqn=" + testNQN + ",transport=tcp,traddr=192.0.2.1"

	for _, tc := range []struct {
		name    string
		options Options
		kernel  OptionSet
		want    string
		dropped []string
		err     string
	}{
		{name: "least", options: tcp, kernel: everything(), want: base},
		{
			name: "all", options: fullOptions(), kernel: everything(),
			want: "nqn=" + testNQN + ",transport=tcp,traddr=fe80::1%eth0,host_traddr=fe80::2,host_iface=eth0,trsvcid=4420," +
				"hostnqn=" + testHost + ",hostid=" + testID + ",discovery,dhchap_secret=" + hostKey + ",dhchap_ctrl_secret=" + ctrlKey + "," +
				"nr_io_queues=0,nr_write_queues=1,nr_poll_queues=2,queue_size=16,keep_alive_tmo=0,reconnect_delay=3," +
				"ctrl_loss_tmo=-1,fast_io_fail_tmo=4,tos=0,keyring=5,tls_key=6,duplicate_connect,disable_sqflow,hdr_digest,data_digest,tls,concat",
		},
		{
			name:    "well-known discovery needs no flag",
			options: Options{Transport: "tcp", TrAddr: "192.0.2.1", NQN: nvme.WellKnownDiscoveryNQN, Discovery: true},
			kernel:  optionsOf("5.15.0"),
			want:    "nqn=" + nvme.WellKnownDiscoveryNQN + ",transport=tcp,traddr=192.0.2.1",
		},
		{
			name:    "unique discovery NQN on an old kernel",
			options: with(tcp, func(o *Options) { o.Discovery = true }), kernel: optionsOf("5.15.0"), err: "discovery",
		},
		{
			name:    "fc takes no port",
			options: Options{Transport: "fc", TrAddr: nnpn, HostTrAddr: nnpn, TrSvcID: "4420", NQN: testNQN, HdrDigest: true, TOS: new(1), CtrlLossTMO: new(0)},
			kernel:  everything(),
			want:    "nqn=" + testNQN + ",transport=fc,traddr=" + nnpn + ",host_traddr=" + nnpn + ",ctrl_loss_tmo=0",
			dropped: []string{"trsvcid", "tos", "hdr_digest"},
		},
		{
			name: "loop", options: Options{Transport: "loop", NQN: testNQN, TrSvcID: "1", ReconnectDelay: new(1)}, kernel: everything(),
			want: "nqn=" + testNQN + ",transport=loop", dropped: []string{"trsvcid", "reconnect_delay"},
		},
		{
			name: "rdma", options: Options{Transport: "rdma", TrAddr: "192.0.2.1", HostTrAddr: "192.0.2.2", NQN: testNQN, DataDigest: true}, kernel: everything(),
			want: "nqn=" + testNQN + ",transport=rdma,traddr=192.0.2.1,host_traddr=192.0.2.2", dropped: []string{"data_digest"},
		},
		{
			name: "kernel lacks an option", options: with(tcp, func(o *Options) { o.FastIOFailTMO = new(1) }),
			kernel: without(everything(), "fast_io_fail_tmo"), want: base, dropped: []string{"fast_io_fail_tmo"},
		},
		{name: "rdma has no interfaces", options: with(tcp, func(o *Options) { o.Transport, o.HostIface = "rdma", "ib0" }), kernel: everything(), err: "host_iface"},
		{name: "loop has no source address", options: with(tcp, func(o *Options) { o.Transport, o.HostTrAddr = "loop", "192.0.2.2" }), kernel: everything(), err: "host_traddr"},
		{name: "rdma has no tls", options: with(tcp, func(o *Options) { o.Transport, o.TLS = "rdma", true }), kernel: everything(), err: "tls"},
		{name: "kernel without interfaces", options: with(tcp, func(o *Options) { o.HostIface = "eth0" }), kernel: optionsOf("5.13.9"), err: "host_iface"},
		{name: "kernel without authentication", options: secretOptions(), kernel: without(everything(), "dhchap_secret", "dhchap_ctrl_secret"), err: "dhchap_ctrl_secret"},
		{
			name: "kernel without authentication, host's key only", options: with(tcp, func(o *Options) { o.DHChapSecret = NewSecret(hostKey) }),
			kernel: without(everything(), "dhchap_secret"), want: base, dropped: []string{"dhchap_secret"},
		},
		{name: "no key", options: with(tcp, func(o *Options) { o.DHChapSecret = NewSecret("NobodySees") }), kernel: everything(), err: "dhchap_secret is not a DH-HMAC-CHAP key"},
		{name: "kernel without tls", options: with(tcp, func(o *Options) { o.TLS = true }), kernel: without(everything(), "tls"), err: "tls"},
		{name: "kernel without anything", options: tcp, err: "nqn"},
		{name: "host NQN alone", options: with(tcp, func(o *Options) { o.HostNQN = testHost }), kernel: everything(), err: "hostid"},
		{name: "host ID alone", options: with(tcp, func(o *Options) { o.HostID = testID }), kernel: everything(), err: "hostnqn"},
		{name: "no transport", options: with(tcp, func(o *Options) { o.Transport = "" }), kernel: everything(), err: "transport"},
		{name: "odd transport", options: with(tcp, func(o *Options) { o.Transport = "pcie" }), kernel: everything(), err: "pcie"},
		{name: "no NQN", options: with(tcp, func(o *Options) { o.NQN = "" }), kernel: everything(), err: "nqn"},
		{name: "no address", options: with(tcp, func(o *Options) { o.TrAddr = "" }), kernel: everything(), err: "traddr"},
		{name: "fc without host address", options: with(tcp, func(o *Options) { o.Transport = "fc" }), kernel: everything(), err: "host_traddr"},
		{name: "comma", options: with(tcp, func(o *Options) { o.TrAddr += ",duplicate_connect" }), kernel: everything(), err: "traddr"},
		{name: "newline", options: with(tcp, func(o *Options) { o.NQN += "\nhostid=x" }), kernel: everything(), err: "nqn"},
		{name: "blank", options: with(tcp, func(o *Options) { o.TrSvcID = "4420 " }), kernel: everything(), err: "trsvcid"},
		{name: "NUL", options: with(tcp, func(o *Options) { o.HostIface = "eth0\x00" }), kernel: everything(), err: "host_iface"},
		{name: "not UTF-8", options: with(tcp, func(o *Options) { o.NQN += "\xff" }), kernel: everything(), err: "nqn"},
		{name: "comma in a secret", options: with(tcp, func(o *Options) { o.DHChapSecret = NewSecret(hostKey + ",tls") }), kernel: everything(), err: "dhchap_secret"},
		{
			name: "longest", options: with(tcp, func(o *Options) { o.TrSvcID = strings.Repeat("1", maxOptionString-len(base)-len(",trsvcid=")) }), kernel: everything(),
			want: base + ",trsvcid=" + strings.Repeat("1", maxOptionString-len(base)-len(",trsvcid=")),
		},
		{
			name: "too long", options: with(tcp, func(o *Options) { o.TrSvcID = strings.Repeat("1", maxOptionString+1-len(base)-len(",trsvcid=")) }), kernel: everything(),
			err: "4096 bytes",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.options.Encode(tc.kernel)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || got.Reveal() != "" {
					t.Errorf("%q, %v; want an error with %q", got.Reveal(), err, tc.err)
				}
				if err != nil && (strings.Contains(err.Error(), "NobodySees") || strings.Contains(err.Error(), "\n")) {
					t.Errorf("the error says too much: %q", err)
				}
				return
			}
			if err != nil || got.Reveal() != tc.want || !slices.Equal(got.Dropped, tc.dropped) {
				t.Errorf("%v\n got %s\nwant %s\ndropped %v, want %v", err, got.Reveal(), tc.want, got.Dropped, tc.dropped)
			}
		})
	}
}

// A field that is forgotten in the table would silently never be sent.
func TestEveryFieldIsSent(t *testing.T) {
	full := reflect.ValueOf(fullOptions())
	if full.NumField() != len(options) {
		t.Errorf("%d fields, %d options", full.NumField(), len(options))
	}
	all := fullOptions().String()
	for i := range full.NumField() {
		name := full.Type().Field(i).Name
		if full.Field(i).IsZero() {
			t.Errorf("fullOptions does not set %s", name)
		}
		less := fullOptions()
		reflect.ValueOf(&less).Elem().Field(i).SetZero()
		if less.String() == all {
			t.Errorf("%s makes no difference", name)
		}
	}
}
