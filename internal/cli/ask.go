package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// This file gets from a daemon what the commands show. A daemon of nvme-stas
// 2.x, as there may be during an upgrade, tells less.

// noDevice stands for the device of a controller that has none.
const noDevice = "nvme?"

// report is all that the daemon tells.
func (t *tool) report(ctx context.Context, client *stasbus.Client) (stasbus.Report, error) {
	r, err := client.Report(ctx)
	if !errors.Is(err, stasbus.ErrOldDaemon) {
		return r, err
	}
	list, err := client.ListControllers(ctx, true)
	if err != nil {
		return r, err
	}
	info, err := processInfo(ctx, client)
	if err != nil {
		return r, err
	}
	r = stasbus.Report{
		Version: stasbus.ReportVersion, Daemon: t.daemon, Release: "nvme-stas 2.x", Time: time.Now(),
		Controllers: []stasbus.Controller{}, Refused: []stasbus.Refusal{},
	}
	r.Host.NQN, _ = info["hostnqn"].(string)
	r.Host.ID, _ = info["hostid"].(string)
	r.Host.SymName, _ = info["symname"].(string)
	r.Tracing, _ = info["tron"].(bool)
	for _, d := range list {
		r.Controllers = append(r.Controllers, fromOld(d, r.Time))
	}
	if !t.discovery {
		return r, nil
	}
	pages, err := t.oldPages(ctx, client)
	for i := range r.Controllers {
		c := &r.Controllers[i]
		for _, p := range pages {
			if p.ID == c.ID {
				c.LogPage = &stasbus.PageState{Known: p.Known, Entries: len(p.Entries)}
			}
		}
	}
	return r, err
}

// fromOld makes the best of a dictionary of list_controllers(true).
func fromOld(d stasbus.Dict, now time.Time) stasbus.Controller {
	c := stasbus.Controller{
		ID: stasbus.ID(stasbus.ParseID(d)), Device: strings.TrimSuffix(d["device"], noDevice), State: "waiting", Wanted: true,
		Origins: []stasbus.Origin{}, Model: d["model"], Serial: d["serial"], CntrlType: d["cntrltype"], DCType: d["dctype"],
	}
	switch {
	case c.Device != "" && d["connected"] == stasbus.True:
		c.State = "connected"
	case d["connect operation"] != "":
		c.State = "connecting"
	}
	if n, _ := strconv.Atoi(d["connect attempts"]); n > 0 && c.Device == "" {
		c.Connect = &stasbus.Failure{Attempts: n}
		if _, left, ok := strings.Cut(d["retry connect timer"], "["); ok {
			if left, err := time.ParseDuration(strings.TrimSuffix(left, "]")); err == nil {
				c.Connect.Next = now.Add(left)
			}
		}
	}
	if d["origin"] != "" {
		c.Origins = append(c.Origins, stasbus.Origin{Kind: d["origin"]})
	}
	if d["dlpe"] != "" && d["dlpe"] != "None" {
		c.Origins = append(c.Origins, stasbus.Origin{Kind: stasbus.Listed, NotConnected: d["dlpe.eflags.ncc"] == stasbus.True})
	}
	return c
}

// pages are the log pages that stafd has.
func (t *tool) pages(ctx context.Context, client *stasbus.Client) ([]stasbus.LogPage, error) {
	pages, err := client.LogPages(ctx)
	if errors.Is(err, stasbus.ErrOldDaemon) {
		return t.oldPages(ctx, client)
	}
	return pages, err
}

func (t *tool) oldPages(ctx context.Context, client *stasbus.Client) ([]stasbus.LogPage, error) {
	all, err := client.GetAllLogPages(ctx, false)
	pages := make([]stasbus.LogPage, 0, len(all))
	for _, p := range all {
		pages = append(pages, stasbus.LogPage{
			ID: stasbus.ID(stasbus.ParseID(p.DiscoveryController)), Device: strings.TrimSuffix(p.DiscoveryController["device"], noDevice),
			Known: len(p.LogPages) > 0, Entries: p.LogPages,
		})
	}
	return pages, err
}

// processInfo is what process_info returns, numbers as they are spelled.
func processInfo(ctx context.Context, client *stasbus.Client) (map[string]any, error) {
	text, err := client.ProcessInfo(ctx)
	if err != nil {
		return nil, err
	}
	info := map[string]any{}
	if err := decode(text, &info); err != nil {
		return nil, fmt.Errorf("process_info: %w", err)
	}
	return info, nil
}

func decode(text string, v any) error {
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	return dec.Decode(v)
}

// oldStatus is what nvme-stas 2.x shows as status: the daemon, and each
// controller with all that there is.
func (t *tool) oldStatus(ctx context.Context, client *stasbus.Client) (map[string]any, error) {
	info, err := processInfo(ctx, client)
	if err != nil {
		return nil, err
	}
	controllers := []any{}
	if t.discovery {
		pages, err := client.GetAllLogPages(ctx, true)
		if err != nil {
			return nil, err
		}
		for _, p := range pages {
			c := make(map[string]any, len(p.DiscoveryController)+1)
			for k, v := range p.DiscoveryController {
				c[k] = v
			}
			entries := make([]any, 0, len(p.LogPages))
			for _, e := range p.LogPages {
				entries = append(entries, e.Map())
			}
			c["log_pages"] = entries
			controllers = append(controllers, c)
		}
	} else {
		list, err := client.ListControllers(ctx, true)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			controllers = append(controllers, d)
		}
	}
	info["controllers"] = controllers
	return info, nil
}

// completeID fills in what the arguments of dlp leave out.
func completeID(ctx context.Context, client *stasbus.Client, id tid.TID) (tid.TID, error) {
	if id.HostNQN == "" {
		info, err := processInfo(ctx, client)
		if err != nil {
			return id, err
		}
		self, _ := info["hostnqn"].(string)
		id.HostNQN = cmp.Or(id.HostNQN, self)
	}
	return tid.New(id), nil
}
