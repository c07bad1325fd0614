package fabrics

import (
	"fmt"
	"os"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// ioctlAdmin is NVME_IOCTL_ADMIN_CMD, _IOWR('N', 0x41, struct nvme_passthru_cmd)
// (include/uapi/linux/nvme_ioctl.h). It is the same everywhere: PowerPC, MIPS
// and others have three bits for the direction in place of two, and other values
// for reading and writing, but both together make the same number.
const ioctlAdmin = 0xc0484e41

// AdminCmd is struct nvme_passthru_cmd. The pointers in it are filled by Direct.
type AdminCmd struct {
	Opcode      uint8
	Flags       uint8
	_           uint16
	NSID        uint32
	CDW2        uint32
	CDW3        uint32
	metadata    uint64
	addr        uint64
	metadataLen uint32
	dataLen     uint32
	CDW10       uint32
	CDW11       uint32
	CDW12       uint32
	CDW13       uint32
	CDW14       uint32
	CDW15       uint32
	TimeoutMS   uint32 // 0: the kernel's admin timeout, normally 60 s
	Result      uint32 // dword 0 of the completion, set by Do
}

// Admin is a connected controller that takes admin commands.
type Admin struct {
	file  *os.File
	calls Calls
}

// OpenAdmin opens a controller's device, "/dev/nvme3". Unless the controller
// is live the kernel says EAGAIN. With nil, calls are [Direct].
func OpenAdmin(path string, calls Calls) (*Admin, error) {
	// Reading is all the kernel asks for; it checks CAP_SYS_ADMIN by itself.
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Admin{f, orDirect(calls)}, nil
}

// Close releases the device. It waits for nothing: a command under way ends
// by itself.
func (a *Admin) Close() error { return a.file.Close() }

// Do executes a command and transfers data, whose direction is in the opcode.
// It blocks until the controller answers or the command times out. A refusal
// by the controller is an [nvme.Status].
func (a *Admin) Do(cmd *AdminCmd, data []byte) error {
	conn, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	var status nvme.Status
	var failed error
	err = conn.Control(func(fd uintptr) { status, failed = a.calls.Admin(int(fd), cmd, data) })
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case status != 0:
		return status
	}
	return nil
}

// GetLogPage implements LogReader.
func (a *Admin) GetLogPage(lid, lsp uint8, rae bool, offset uint64, buf []byte) error {
	get := nvme.GetLogPage{LID: lid, LSP: lsp, RAE: rae, Offset: offset, Length: uint32(len(buf))}
	cdw, err := get.Dwords()
	if err != nil {
		return err
	}
	cmd := AdminCmd{
		Opcode: nvme.OpGetLogPage, NSID: get.NSID(),
		CDW10: cdw[0], CDW11: cdw[1], CDW12: cdw[2], CDW13: cdw[3],
	}
	if err := a.Do(&cmd, buf); err != nil {
		return fmt.Errorf("log page %#02x of %s: %w", lid, a.file.Name(), err)
	}
	return nil
}

// Identify reads the Identify Controller data structure.
func (a *Admin) Identify() (nvme.IdentifyController, error) {
	get := nvme.Identify{CNS: nvme.CNSController}.Command()
	var buf [nvme.IdentifySize]byte
	if err := a.Do(&AdminCmd{Opcode: get.Opcode, CDW10: get.CDW10}, buf[:]); err != nil {
		return nvme.IdentifyController{}, fmt.Errorf("identify controller %s: %w", a.file.Name(), err)
	}
	return nvme.DecodeIdentifyController(buf[:])
}

// Manage sends a Discovery Information Management command: it tells a
// discovery controller something, or has it forget that. The controller gets
// the time given, or the kernel's usual one with 0.
func (a *Admin) Manage(info nvme.DiscoveryInformation, timeout time.Duration) error {
	data, err := info.AppendBinary(nil)
	if err != nil {
		return err
	}
	cmd := info.Command()
	err = a.Do(&AdminCmd{Opcode: cmd.Opcode, CDW10: cmd.CDW10, TimeoutMS: uint32(timeout.Milliseconds())}, data)
	if err != nil {
		return fmt.Errorf("%s: discovery information management (%s): %w", a.file.Name(), info.Task, err)
	}
	return nil
}
