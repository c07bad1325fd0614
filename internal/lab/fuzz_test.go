package lab

import "testing"

// FuzzParse: no file, however odd, does worse than not being understood.
func FuzzParse(f *testing.F) {
	f.Add([]byte(Example))
	f.Add([]byte(testConfig))
	f.Add([]byte("listeners: [&a {address: 127.0.0.1:0}, *a, <<: *a]\nfaults: [{do: mute, lid: !!int 3}]\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = Parse("/nonexistent/lab.yaml", data)
	})
}
