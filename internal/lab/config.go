package lab

import (
	"bufio"
	_ "embed" // the example
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/target"
)

// Example is a lab.yaml that shows every key.
//
//go:embed example.yaml
var Example string

// Config is what a lab.yaml holds: a target, and what only a lab needs.
type Config struct {
	// Control is the path of the control socket; see DefaultControl.
	Control string `json:"control,omitempty"`
	// LogLevel is debug, info, warn or error; info if empty.
	LogLevel slog.Level `json:"log-level,omitempty"`

	Listeners  []Listener         `json:"listeners,omitempty"`
	Subsystems []target.Subsystem `json:"subsystems,omitempty"`
	Hosts      []Host             `json:"hosts,omitempty"`
	Zoning     target.Zoning      `json:"zoning,omitzero"`
	Faults     []target.Fault     `json:"faults,omitempty"`
}

// Listener is a listener of the target, and how it is announced.
type Listener struct {
	target.Listener `yaml:",inline"`

	Announce Announce `json:"announce,omitzero"`
}

// Announce says how the discovery service of a listener is announced by mDNS.
type Announce struct {
	// Name is the instance name, free text; it is not announced without one.
	Name string `json:"name,omitempty"`
	// Interface is where it is announced; those that have the listener's
	// address if empty.
	Interface string `json:"interface,omitempty"`
	// TTL is how long hosts may believe it without asking again, in whole seconds;
	// what RFC 6762 recommends if 0.
	TTL target.Duration `json:"ttl,omitempty"`
}

// Host is a host of the target. A key stands in the file, or in a file of its
// own.
type Host struct {
	target.Host `yaml:",inline"`

	KeyFile     string `json:"dhchap-key-file,omitempty"`
	CtrlKeyFile string `json:"dhchap-ctrl-key-file,omitempty"`
}

// Load reads a configuration file. What is wrong with it is told line by line.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration. Path is its name in errors, and files that it
// names are looked for beside it.
func Parse(path string, data []byte) (*Config, error) {
	cfg := new(Config)
	d := decode(path, data, cfg)
	if d.err() == nil {
		cfg.readKeys(d)
	}
	if d.err() == nil {
		cfg.try(d)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// readKeys reads the keys that are in files of their own.
func (c *Config) readKeys(d *document) {
	for i := range c.Hosts {
		h := &c.Hosts[i]
		for _, k := range []struct {
			name string
			key  *dhchap.Key
			file string
		}{
			{"dhchap-key", &h.Key, h.KeyFile},
			{"dhchap-ctrl-key", &h.CtrlKey, h.CtrlKeyFile},
		} {
			switch {
			case k.file == "":
			case !k.key.IsZero():
				d.complain(at("hosts", i), "both %s and %[1]s-file are given; one of them is allowed", k.name)
			default:
				if !filepath.IsAbs(k.file) {
					k.file = filepath.Join(filepath.Dir(d.path), k.file)
				}
				key, err := readKeyFile(k.file)
				if err != nil {
					d.complain(at("hosts", i), "%s-file: %w", k.name, err)
				}
				*k.key = key
			}
		}
	}
}

// maxKey is more than the line of a key can have, in bytes.
const maxKey = 4 << 10

// readKey reads a key from the first line of a file.
func readKey(in io.Reader) (dhchap.Key, error) {
	line, err := bufio.NewReader(io.LimitReader(in, maxKey)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return dhchap.Key{}, err
	}
	return dhchap.ParseKey(strings.TrimSpace(line))
}

// readKeyFile reads a key from the file of a name, which its errors tell.
func readKeyFile(path string) (dhchap.Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return dhchap.Key{}, err
	}
	defer file.Close()
	key, err := readKey(file)
	if err != nil {
		return dhchap.Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// target returns what of the configuration makes the target, at these listeners.
func (c *Config) target(listeners []Listener) target.Config {
	t := target.Config{Subsystems: c.Subsystems, Zoning: c.Zoning, Faults: c.Faults}
	for _, l := range listeners {
		t.Listeners = append(t.Listeners, l.Listener)
	}
	for _, h := range c.Hosts {
		t.Hosts = append(t.Hosts, h.Host)
	}
	return t
}

// Announcements.
const (
	maxInstance = 63 // bytes of a DNS label
	maxTTL      = 24 * time.Hour
)

// check says what is wrong with an announcement.
func (a Announce) check(l target.Listener) error {
	switch {
	case a.Name == "" && (a.Interface != "" || a.TTL != 0):
		return errors.New("announce: the name is missing, without which nothing is announced")
	case a.Name == "":
		return nil
	case len(a.Name) > maxInstance:
		return fmt.Errorf("announce: the name has %d bytes, %d are allowed", len(a.Name), maxInstance)
	case strings.HasPrefix(a.Name, ".") || strings.HasSuffix(a.Name, "."):
		return fmt.Errorf("announce: the name %q must not begin or end in a dot", a.Name)
	case a.TTL < 0 || a.TTL > target.Duration(maxTTL) || time.Duration(a.TTL)%time.Second != 0:
		return fmt.Errorf("announce: the TTL has to be of whole seconds, up to %v", maxTTL)
	case l.Discovery.Type == target.NoDiscovery:
		return errors.New("announce: there is no discovery service that could be announced")
	}
	return nil
}
