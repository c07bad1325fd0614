package nbft

import (
	"errors"
	"fmt"
	"slices"
)

// Decode decodes a table. An error means that the bytes are no NBFT, or one of
// a kind that is not known; whatever else is wrong is in the Problems.
func Decode(b []byte) (*Table, error) {
	raw, err := check(b)
	if err != nil {
		return nil, fmt.Errorf("not a usable NBFT: %w", err)
	}
	c := &codec{raw: raw}
	at, size := int64(le.Uint32(raw[offHeapOffset:])), int64(le.Uint32(raw[offHeapLength:]))
	if at+size > int64(len(raw)) {
		return nil, fmt.Errorf("not a usable NBFT: its heap, %d bytes at %#x, is not within its %d bytes", size, at, len(raw))
	}
	c.heapAt, c.heapEnd = int(at), int(at+size)

	t := new(Table)
	header := &form{codec: c, b: raw[:sizeHeader], kind: "header"}
	control := &form{codec: c, b: raw[sizeHeader:][:sizeControl], kind: "control"}
	t.layoutHeader(header)
	if len(b) > len(raw) {
		header.problem("length", "is %d, and %d more bytes are there", len(raw), len(b)-len(raw))
	}
	if err := t.control(control); err != nil {
		return nil, fmt.Errorf("not a usable NBFT: %w", err)
	}
	t.Problems = c.problems
	return t, nil
}

// check looks whether all of a table is there, and returns it.
func check(b []byte) ([]byte, error) {
	if len(b) < sizeHeader+sizeControl {
		return nil, fmt.Errorf("it has %d bytes, and should have %d at least", len(b), sizeHeader+sizeControl)
	}
	if got := string(b[:len(signature)]); got != signature {
		return nil, fmt.Errorf("its signature is %q, not %q", got, signature)
	}
	length := int64(le.Uint32(b[offLength:]))
	if length < sizeHeader+sizeControl || length > int64(len(b)) {
		return nil, fmt.Errorf("its length is %d, and %d bytes are there", length, len(b))
	}
	b = b[:length]
	if got := sum(b); got != 0 {
		return nil, fmt.Errorf("its bytes sum up to %#x, not to 0 (checksum)", got)
	}
	if b[offMajor] != 1 {
		return nil, fmt.Errorf("its revision is %d, only 1 is known", b[offMajor])
	}
	return b, nil
}

// sum is what has to be 0 in an ACPI table.
func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// control is about the control structure, and all that it leads to. Descriptors
// come after those they refer to.
func (t *Table) control(f *form) error {
	host := f.raw[sizeHeader+sizeControl:]
	if f.encoding {
		host = host[:sizeHost]
		f.b[1], f.b[14] = 1, 1 // versions
		le.PutUint16(f.b[4:], sizeControl)
		le.PutUint32(f.b[8:], sizeHeader+sizeControl)
		le.PutUint16(f.b[12:], sizeHost)
		f.next = sizeHeader + sizeControl + sizeHost
	}
	if !f.id(idControl) || f.b[1] != 1 || le.Uint16(f.b[4:]) < sizeControl {
		return fmt.Errorf("its control structure has ID %d, revision %d and %d bytes, want %d, 1 and %d",
			f.b[0], f.b[1], le.Uint16(f.b[4:]), idControl, sizeControl)
	}
	if !f.valid(6) {
		f.problem("flags", "all that the table lists is marked as not valid")
		t.Subsystems, t.HFIs, t.Discovery, t.Security = []Subsystem{}, []HFI{}, []Discovery{}, []Security{}
		return nil
	}
	if !f.encoding {
		at, size := int64(le.Uint32(f.b[8:])), int64(le.Uint16(f.b[12:]))
		if size < sizeHost || at < sizeHeader+sizeControl || at+size > int64(len(f.raw)) {
			return fmt.Errorf("its host descriptor of %d bytes at %#x is too small, or not in the table", size, at)
		}
		host = f.raw[at : at+size]
	}
	h := &form{codec: f.codec, b: host, kind: "host"}
	if !h.begin(idHost, 1) {
		return errors.New("its host descriptor is none, or marked as not valid")
	}
	t.layoutHost(h)
	list(f, 16, "HFI", sizeHFI, &t.HFIs, t.layoutHFI)
	list(f, 32, "security", sizeSecurity, &t.Security, t.layoutSecurity)
	list(f, 40, "discovery", sizeDiscovery, &t.Discovery, t.layoutDiscovery)
	list(f, 24, "SSNS", sizeSSNS, &t.Subsystems, t.layoutSSNS)
	return nil
}

// AppendBinary appends the table as a firmware would have it. What Decode would
// not understand is an error. The Problems are left out.
func (t *Table) AppendBinary(b []byte) ([]byte, error) {
	c := &codec{encoding: true}
	c.heapAt = sizeHeader + sizeControl + sizeHost + sizeHFI*len(t.HFIs) + sizeSecurity*len(t.Security) +
		sizeDiscovery*len(t.Discovery) + sizeSSNS*len(t.Subsystems)
	c.raw = make([]byte, c.heapAt)

	copy(c.raw, signature)
	own := *t // layouts write to what they read
	own.HFIs, own.Security = slices.Clone(t.HFIs), slices.Clone(t.Security)
	own.Discovery, own.Subsystems = slices.Clone(t.Discovery), slices.Clone(t.Subsystems)
	own.layoutHeader(&form{codec: c, b: c.raw[:sizeHeader], kind: "header"})
	err := own.control(&form{codec: c, b: c.raw[sizeHeader:][:sizeControl], kind: "control"})
	for _, p := range c.problems {
		err = errors.Join(err, errors.New(p.String()))
	}
	if err != nil {
		return b, err
	}
	le.PutUint32(c.raw[offHeapOffset:], uint32(c.heapAt))
	le.PutUint32(c.raw[offHeapLength:], uint32(len(c.heap)))
	le.PutUint32(c.raw[offLength:], uint32(len(c.raw)+len(c.heap)))
	raw := slices.Concat(c.raw, c.heap)
	raw[offChecksum] = -sum(raw)
	return append(b, raw...), nil
}
