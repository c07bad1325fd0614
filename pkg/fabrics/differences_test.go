package fabrics

import (
	"fmt"
	"slices"
	"testing"
)

func TestDifferences(t *testing.T) {
	base := Options{Transport: "tcp", TrAddr: "10.0.0.1", CtrlLossTMO: new(600), TLS: true, DHChapSecret: NewSecret("DHHC-1:00:a:")}
	for _, test := range []struct {
		name string
		edit func(*Options)
		want string
	}{
		{"none", func(o *Options) { o.CtrlLossTMO = new(600) }, "[]"},
		{"number", func(o *Options) { o.CtrlLossTMO = new(30) }, "[{ctrl_loss_tmo 600 30 false}]"},
		{"to zero", func(o *Options) { o.FastIOFailTMO = new(0) }, "[{fast_io_fail_tmo  0 false}]"},
		{"left to the kernel", func(o *Options) { o.CtrlLossTMO = nil }, "[{ctrl_loss_tmo 600  false}]"},
		{"flags", func(o *Options) { o.TLS, o.HdrDigest = false, true }, "[{hdr_digest  true false} {tls true  false}]"},
		{"secret", func(o *Options) { o.DHChapSecret = NewSecret("DHHC-1:00:b:") }, "[{dhchap_secret   true}]"},
	} {
		o := base
		test.edit(&o)
		if got := fmt.Sprint(slices.Concat([]Difference{}, base.Differences(o))); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
