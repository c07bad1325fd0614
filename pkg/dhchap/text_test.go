package dhchap

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	const key = "DHHC-1:00:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAl7OaH:"
	var v struct {
		Hash  Hash
		Group Group
		Key   Key
	}
	if err := json.Unmarshal([]byte(`{"Hash": "sha384", "Group": "ffdhe3072", "Key": "`+key+`"}`), &v); err != nil {
		t.Fatal(err)
	}
	if v.Hash != SHA384 || v.Group != FFDHE3072 || v.Key.Reveal() != key {
		t.Errorf("%v %v %q", v.Hash, v.Group, v.Key.Reveal())
	}
	out, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(out), `"sha384"`) || !strings.Contains(string(out), `"ffdhe3072"`) || strings.Contains(string(out), "AQID") {
		t.Errorf("%s, %v", out, err)
	}
	for _, bad := range []string{`{"Hash": "md5"}`, `{"Group": "modp"}`, `{"Key": "DHHC-1:x"}`} {
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
