package target

import (
	"encoding/binary"
	"slices"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// Log pages that the two types of controllers have, by LID.
var (
	discoveryLogPages = []uint8{nvme.LogSupportedPages, nvme.LogError, nvme.LogDiscovery}
	storageLogPages   = []uint8{
		nvme.LogSupportedPages, nvme.LogError, nvme.LogSMART, nvme.LogChangedNamespaces, nvme.LogEffects, nvme.LogANA,
	}
)

// logPages read a log page: each gives the part of it that was asked for; what
// it leaves out is zero.
var logPages = map[uint8]func(*controller, nvme.GetLogPage) reply{
	nvme.LogSupportedPages:    supportedPages,
	nvme.LogError:             zeroes,
	nvme.LogSMART:             smart,
	nvme.LogChangedNamespaces: changedNamespaces,
	nvme.LogEffects:           effects,
	nvme.LogANA:               anaLog,
	nvme.LogDiscovery:         discoveryLog,
}

// logPages returns the log pages that the controller has.
func (c *controller) logPages() []uint8 {
	switch {
	case c.sub != nil:
		return storageLogPages
	case c.listener.Discovery.NoSupportedPages:
		return discoveryLogPages[1:]
	}
	return discoveryLogPages
}

// getLogPage reads a log page (Base, "Get Log Page command").
func getLogPage(r *request) reply {
	get, err := nvme.ParseGetLogPage(r.cmd)
	switch {
	case err != nil:
		return refuse(nvme.StatusInvalidField)
	case !slices.Contains(r.c.logPages(), get.LID):
		return refuse(nvme.StatusInvalidLogPage)
	case get.Length > maxTransfer || get.Length != r.cmd.SGL.Length:
		return refuse(nvme.StatusInvalidField)
	}
	if !get.RAE {
		// Before it is read: a change from here on is to be announced again.
		r.c.logRead(get.LID)
	}
	return logPages[get.LID](r.c, get)
}

// part cuts out of a whole log page what was asked for.
func part(page []byte, get nvme.GetLogPage) reply {
	if get.Offset >= uint64(len(page)) {
		return reply{}
	}
	page = page[get.Offset:]
	return reply{data: page[:min(len(page), int(get.Length))]}
}

func zeroes(*controller, nvme.GetLogPage) reply { return reply{} }

func supportedPages(c *controller, get nvme.GetLogPage) reply {
	pages := make(map[uint8]nvme.LogPageSupport)
	for _, lid := range c.logPages() {
		pages[lid] = nvme.NewLogPageSupport(0)
		if lid == nvme.LogDiscovery {
			pages[lid] = nvme.NewLogPageSupport(c.listener.lsp())
		}
	}
	return part(nvme.AppendSupportedLogPages(nil, pages), get)
}

// lsp returns the options that the discovery log takes.
func (l *listener) lsp() uint8 {
	lsp := nvme.LSPAllSubsystems
	if !l.Discovery.NoPLEO {
		lsp |= nvme.LSPPortLocal
	}
	if !l.Discovery.NoExtended {
		lsp |= nvme.LSPExtended
	}
	return lsp
}

// smart says that all is well: no warning, 300 K, all of the spare there.
func smart(_ *controller, get nvme.GetLogPage) reply {
	page := make([]byte, 512)
	binary.LittleEndian.PutUint16(page[1:], 300)
	page[3], page[4] = 100, 10
	return part(page, get)
}

// changedNamespaces lists, once, what has changed.
func changedNamespaces(c *controller, get nvme.GetLogPage) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	page := make([]byte, 4096)
	if len(c.changed) > len(page)/4 {
		c.changed = []uint32{0xffffffff}
	}
	for i, id := range c.changed {
		binary.LittleEndian.PutUint32(page[4*i:], id)
	}
	if !get.RAE {
		c.changed = nil
	}
	return part(page, get)
}

// effectsPage lists the commands, all without effects beyond their own.
var effectsPage = make([]byte, 4096)

func init() { // not by its declaration, which would be circular: reading it is one of the commands
	const csupp = 1
	for op := range adminCommands {
		effectsPage[4*int(op)] = csupp
	}
	for op := range ioCommands {
		effectsPage[1024+4*int(op)] = csupp
	}
}

func effects(_ *controller, get nvme.GetLogPage) reply { return part(effectsPage, get) }

func anaLog(c *controller, get nvme.GetLogPage) reply {
	state := c.sub.state.Load()
	log := nvme.ANALog{ChangeCount: state.anaChanges, Groups: state.anaGroups(c.listener.Name)}
	page, err := log.AppendBinary(nil)
	if err != nil {
		return refuse(nvme.StatusInternalError)
	}
	return part(page, get)
}

// discoveryLog gives a part of the discovery log. Only the entries that were
// asked for are encoded: reading a log in pieces costs no more than its length.
func discoveryLog(c *controller, get nvme.GetLogPage) reply {
	if get.LSP&^c.listener.lsp() != 0 {
		return refuse(nvme.StatusInvalidField)
	}
	c.t.mu.Lock()
	v := c.view
	c.t.mu.Unlock()
	entries := v.entries
	if get.LSP&nvme.LSPAllSubsystems != 0 {
		entries = c.t.all(c.listener)
	}
	if get.LSP&nvme.LSPPortLocal != 0 {
		entries = c.listener.own(entries)
	}
	header := nvme.DiscoveryLogHeader{GenCtr: v.gen, NumRec: uint64(len(entries)), Flags: get.LSP}
	if get.LSP&nvme.LSPExtended != 0 {
		return extendedLog(header, entries, get)
	}
	header.Length = uint32(nvme.LogHeaderSize + len(entries)*nvme.EntrySize)
	end := min(get.Offset+uint64(get.Length), uint64(header.Length))
	var page []byte
	first := get.Offset / nvme.LogHeaderSize * nvme.LogHeaderSize // header and entries have the same size
	for at := first; at < end; at += nvme.EntrySize {
		var err error
		if at == 0 {
			page, err = header.AppendBinary(page)
		} else {
			page, err = entries[(at-nvme.LogHeaderSize)/nvme.EntrySize].AppendBinary(page)
		}
		if err != nil {
			return refuse(nvme.StatusInternalError)
		}
	}
	get.Offset -= first
	return part(page, get)
}

// extendedLog gives a part of the log whose entries carry attributes.
func extendedLog(header nvme.DiscoveryLogHeader, entries []*logEntry, get nvme.GetLogPage) reply {
	var body []byte
	for _, e := range entries {
		extended := nvme.ExtendedEntry{Entry: e.DiscoveryLogEntry}
		if e.label != "" {
			extended.Attributes = append(extended.Attributes, nvme.SymbolicName(e.label))
		}
		var err error
		if body, err = extended.AppendBinary(body); err != nil {
			return refuse(nvme.StatusInternalError)
		}
	}
	header.Length = uint32(nvme.LogHeaderSize + len(body))
	page, err := header.AppendBinary(nil)
	if err != nil {
		return refuse(nvme.StatusInternalError)
	}
	return part(append(page, body...), get)
}

// own leaves out what leads to other listeners.
func (l *listener) own(entries []*logEntry) []*logEntry {
	var own []*logEntry
	for _, e := range entries {
		if e.listener == l {
			own = append(own, e)
		}
	}
	return own
}
