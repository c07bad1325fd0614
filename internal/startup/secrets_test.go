package startup

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// keyring makes keys, and recognizes them wherever they come out.
type keyring struct{ made []string }

// key makes a new DH-HMAC-CHAP key.
func (k *keyring) key() string {
	text := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%02d: nobody is meant to read this", len(k.made)))
	k.made = append(k.made, text)
	return "DHHC-1:00:" + text + ":"
}

// word makes what somebody may take for a key.
func (k *keyring) word() string {
	k.made = append(k.made, fmt.Sprintf("geheim%02d", len(k.made)))
	return k.made[len(k.made)-1]
}

// in returns the keys that the text shows, or a good part of.
func (k *keyring) in(text string) []string {
	var shown []string
	text = strings.ToLower(text) // as the names of options are shown
	for _, key := range k.made {
		key = strings.ToLower(key)
		// Keys differ at their beginning, and are the same behind it.
		if strings.Contains(text, key[:min(len(key), 12)]) || len(key) > 20 && strings.Contains(text, key[len(key)-12:]) {
			shown = append(shown, key)
		}
	}
	return shown
}

// witness is a kernel that remembers the keys that it was given.
type witness struct {
	*stastest.Kernel
	mu   sync.Mutex
	keys []string
}

// refusedAddr answers, and refuses whoever comes.
const refusedAddr = "10.0.0.9"

func (w *witness) Connect(o fabrics.Options) (string, error) {
	w.mu.Lock()
	w.keys = append(w.keys, o.DHChapSecret.Reveal(), o.DHChapCtrlSecret.Reveal())
	w.mu.Unlock()
	if o.TrAddr == refusedAddr {
		return "", &fabrics.ConnectError{Options: o, Errno: syscall.EKEYREJECTED}
	}
	return w.Kernel.Connect(o)
}

func (w *witness) has(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.keys, key)
}

// TestSecretsStayIn gives the daemons keys in every place, right and wrong, and
// looks for them in everything that leaves the daemons: log lines at level
// debug, replies on the bus, state file, and the output of --check-config
// (defects 4, 5 and 6 of nvme-stas). The kernel alone gets them.
func TestSecretsStayIn(t *testing.T) {
	for _, daemon := range []func(host) program{stafd, stacd} {
		p := daemon(root)
		t.Run(string(p.name), func(t *testing.T) {
			t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
			t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
			dir := t.TempDir()
			var keys keyring
			file := func(name, text string) string {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, path, text)
				return path
			}

			// What is right.
			ofHost, ofLine, ofTarget, refused, ofAll := keys.key(), keys.key(), keys.key(), keys.key(), keys.key()
			p.paths = hostid.Paths{
				SysConf: file("sys.conf", "[Host]\nkey = "+ofHost+"\n"),
				NQN:     file("hostnqn", "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2\n"),
				ID:      file("hostid", "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2\n"),
				Key:     filepath.Join(dir, "hostkey"),
			}
			const line = "controller = transport=tcp; trsvcid=8009; nqn=nqn.a; traddr="
			good := "[Controllers]\n" +
				line + "10.0.0.1\n" +
				line + "10.0.0.2; dhchap-secret=" + ofLine + "; dhchap-ctrl-secret=file://" + file("target.key", ofTarget) + "\n" +
				line + "10.0.0.9; dhchap-secret=" + refused + "\n"
			// What somebody may have written.
			messy := "[Global]\ndhchap-secret=" + ofAll + "\ndhchap_secret=" + keys.key() + "\ndhchap-ctrl-secert: " + keys.key() +
				"\ntls-key=NVMeTLSkey-1:01:" + strings.TrimPrefix(keys.key(), "DHHC-1:00:") + "\nkeyring=" + keys.key() + "\n" + keys.key() + "\n" +
				"kato=" + keys.key() + "\n" +
				good + line + "10.0.0.3\n" +
				line + "10.0.0.4; dhchap-secret=" + keys.word() + "\n" +
				line + "10.0.0.4; dhchap-secret=file://" + file("wrong.key", keys.word()) + "\n" +
				line + "10.0.0.4; dhchap-secert=" + keys.key() + "\n" +
				line + "10.0.0.4; dhchap-secret=\n " + keys.key() + "\n" +
				line + "10.0.0.4, dhchap-secret=" + keys.key() + "\n" +
				line + "x; dhchap-secret=" + keys.key() + "\n" +
				"controller = " + keys.key() + "\n" +
				"exclude = nqn=nqn.b; dhchap-secret=" + keys.key() + "\n" +
				"subsystem = nqn=nqn.b*; dhchap-secret=" + keys.word() + "; dhchap-ctrl-secret=" + keys.key() + "\n" +
				"[" + keys.key() + "]\nx=1\n"
			dropIn := "[Global]\ndhchap-ctrl-secret=" + keys.word() + "\n"
			wrongHosts := []string{
				"key = " + keys.word() + "\n" + keys.key() + "\n" + keys.key() + " = x\n[" + keys.key() + "]\n",
				"nqn = " + keys.key() + "\n",
				"id = " + keys.key() + "\n",
			}
			broken := []string{
				"[Global\ndhchap-secret=" + keys.key() + "\n",
				"dhchap-secret=" + keys.key() + "\n[Global]\n",
				"[Global]\n=" + keys.key() + "\n",
			}

			// Run it.
			kernel := &witness{Kernel: stastest.NewKernel()}
			for i, addr := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", refusedAddr} {
				kernel.OpenPort(i+1, addr, "8009")
				kernel.Offer("nqn.a", addr, "8009", true)
			}
			if p.name == "stafd" { // where the discovery controllers have the well-known name
				good, messy = strings.ReplaceAll(good, " nqn=nqn.a;", ""), strings.ReplaceAll(messy, " nqn=nqn.a;", "")
			}
			manager := &manager{told: make(chan string, 8)}
			bus := &stastest.Connection{Bus: stastest.NewBus()}
			run := p.run
			p.run = func(ctx context.Context, env service.Env) error {
				env.Kernel, env.Supervisor, env.Bus = kernel, manager, bus
				return run(ctx, env)
			}
			var stdout, stderr buffer
			check := func() { p.main([]string{"--check-config", "-f", filepath.Join(dir, "f")}, &stdout, &stderr) }
			reload := func(text string) {
				write(t, filepath.Join(dir, "f"), text)
				check()
				kill(t, syscall.SIGHUP)
				manager.expect(t, "reloading")
				manager.expect(t, "ready")
			}
			var replies bytes.Buffer
			ask := func() { askAll(t, &replies, bus.Backend) }

			conf := file("f", good)
			check()
			code := make(chan int)
			go func() { code <- p.main([]string{"--tron", "-f", conf}, &stdout, &stderr) }()
			manager.expect(t, "ready")
			until(t, "the host's key is used", func() bool { return kernel.has(ofHost) })
			until(t, "the keys of the line are used", func() bool { return kernel.has(ofLine) && kernel.has(ofTarget) })
			until(t, "a connect fails", func() bool { return kernel.has(refused) && strings.Contains(stderr.String(), "10.0.0.9") })
			ask()
			reload(messy)
			until(t, "the key of [Global] is used", func() bool { return kernel.has(ofAll) })
			ask()
			file("f.d/a.conf", dropIn)
			for _, text := range wrongHosts {
				file("sys.conf", "[Host]\n"+text)
				reload(messy)
				ask()
			}
			for _, text := range broken {
				reload(text)
				ask()
			}
			kill(t, syscall.SIGTERM)
			manager.expect(t, "stopping")
			if c := <-code; c != exitOK {
				t.Errorf("exit code %d", c)
			}

			state, err := os.ReadFile(filepath.Join(os.Getenv("RUNTIME_DIRECTORY"), "state.json"))
			if err != nil {
				t.Fatal(err)
			}
			for _, left := range []struct{ what, text, says string }{
				{"log and errors", stderr.String(), "10.0.0.9"},
				{"log and errors", stderr.String(), "<secret>"},
				{"output", stdout.String(), "<secret>"},
				{"replies", replies.String(), "10.0.0.2"},
				{"state", string(state), "10.0.0.2"},
			} {
				if shown := keys.in(left.text); len(shown) > 0 {
					t.Errorf("%s: %d keys are shown: %s\n%s", left.what, len(shown), shown, left.text)
				}
				// None is hidden by having nothing to say.
				if !strings.Contains(left.text, left.says) {
					t.Errorf("%s: nothing is said of %s\n%s", left.what, left.says, left.text)
				}
			}
		})
	}
}

// askAll calls every method that a daemon has on the bus.
func askAll(t *testing.T, replies *bytes.Buffer, backend stasbus.Backend) {
	t.Helper()
	ctx := t.Context()
	note := func(reply any, err error) {
		t.Helper()
		if err != nil {
			fmt.Fprintln(replies, err)
			return
		}
		if err := json.NewEncoder(replies).Encode(reply); err != nil {
			t.Error(err)
		}
	}
	note(backend.ProcessInfo(ctx))
	note(backend.ListControllers(ctx, false))
	all, err := backend.ListControllers(ctx, true)
	note(all, err)
	for _, c := range all {
		id := stasbus.ParseID(c)
		note(backend.ControllerInfo(ctx, id))
		if pages, ok := backend.(stasbus.LogPages); ok {
			note(pages.GetLogPages(ctx, id))
		}
	}
	if pages, ok := backend.(stasbus.LogPages); ok {
		note(pages.GetAllLogPages(ctx, false))
		note(pages.GetAllLogPages(ctx, true))
	}
}

// until waits for what happens in real time.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}
