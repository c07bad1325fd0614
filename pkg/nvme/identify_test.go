package nvme

import (
	"bytes"
	"strings"
	"testing"
)

func TestIdentifyLayout(t *testing.T) {
	i := Identify{CNS: CNSCommandSetController, CntID: 0x0201, CSI: 3, NSID: 0x07060504}
	checkCommand(t, i.Command(),
		at{0, "\x06"}, at{4, "\x04\x05\x06\x07"}, at{32, "\x00\x10"}, at{39, "\x5a"},
		at{40, "\x06\x00\x01\x02"}, at{44, "\x00\x00\x00\x03"})
	if got := ParseIdentify(i.Command()); got != i {
		t.Errorf("%+v", got)
	}
}

func TestIdentifyControllerLayout(t *testing.T) {
	id := IdentifyController{
		VID: 0x0102, SSVID: 0x0304, Serial: "serial", Model: "a model", FirmwareRev: "1.2.3",
		CMIC: CMICMultiController | CMICANA, MDTS: 5, CntlID: 0x0607, Version: Version21,
		RTD3R: 0x08090a0b, RTD3E: 5_000_000, OAES: AENConfigDiscovery | AENConfigANA | AENConfigNamespace,
		CTRAtt: CTRAttHostID128 | CTRAttTBKAS | CTRAttELBAS, CntrlType: ControllerDiscovery,
		CRDT: [3]uint16{0x1011, 0x1213, 0x1415}, OACS: 0x1617, ACL: 0x18, AERL: 0x19, FRMW: 0x1a,
		LPA: LPAEffects | LPAExtended, APSTA: 0x1b, KAS: 0x1c1d, ANATT: 0x1e, ANACAP: 0x1f,
		ANAGrpMax: 0x20212223, NANAGrpID: 0x24252627, CQT: 0x2829, SQES: 0x66, CQES: 0x44,
		MaxCmd: 0x2a2b, NN: 0x2c2d2e2f, ONCS: ONCSDSM | ONCSWriteZeroes | ONCSTimestamp, VWC: VWCPresent,
		SGLS: SGLSupported | SGLOffset, MNAN: 0x30313233, SubNQN: "nqn.2014-08.org.example:a",
		IOCCSz: 516, IORCSz: 1, ICDOff: 0x3435, FCAtt: FCAttStatic, MSDBD: 0x36, OFCS: OFCSDisconnect, DCType: DCTypeCDC,
	}
	want := image(4096,
		at{0, "\x02\x01"}, at{2, "\x04\x03"}, at{4, padded("serial", 20)}, at{24, padded("a model", 40)},
		at{64, padded("1.2.3", 8)}, at{76, "\x0a"}, at{77, "\x05"}, at{78, "\x07\x06"}, at{80, "\x00\x01\x02\x00"},
		at{84, "\x0b\x0a\x09\x08"}, at{88, "\x40\x4b\x4c\x00"}, at{92, "\x00\x09\x00\x80"}, at{96, "\x41\x80\x00\x00"},
		at{111, "\x02"}, at{128, "\x11\x10"}, at{130, "\x13\x12"}, at{132, "\x15\x14"}, at{256, "\x17\x16"},
		at{258, "\x18"}, at{259, "\x19"}, at{260, "\x1a"}, at{261, "\x06"}, at{265, "\x1b"}, at{320, "\x1d\x1c"},
		at{342, "\x1e"}, at{343, "\x1f"}, at{344, "\x23\x22\x21\x20"}, at{348, "\x27\x26\x25\x24"}, at{386, "\x29\x28"},
		at{512, "\x66"}, at{513, "\x44"}, at{514, "\x2b\x2a"}, at{516, "\x2f\x2e\x2d\x2c"}, at{520, "\x4c\x00"},
		at{525, "\x01"}, at{536, "\x01\x00\x10\x00"}, at{540, "\x33\x32\x31\x30"}, at{768, "nqn.2014-08.org.example:a"},
		at{1792, "\x04\x02\x00\x00"}, at{1796, "\x01\x00\x00\x00"}, at{1800, "\x35\x34"}, at{1802, "\x01"},
		at{1803, "\x36"}, at{1804, "\x01\x00"}, at{1806, "\x02"},
	)
	checkImage(t, id, want)
	checkDecode(t, DecodeIdentifyController, want, id)
}

func TestIdentifyControllerText(t *testing.T) {
	for _, id := range []IdentifyController{
		{Serial: strings.Repeat("s", 21)},
		{Model: strings.Repeat("m", 41)},
		{FirmwareRev: strings.Repeat("f", 9)},
		{SubNQN: strings.Repeat("n", 257)},
		{Model: "a\x1b[2J"},
	} {
		if b, err := id.AppendBinary(nil); err == nil || b != nil {
			t.Errorf("%+v was encoded", id)
		}
	}
	full := IdentifyController{Serial: strings.Repeat("s", 20), Model: strings.Repeat("m", 40), FirmwareRev: strings.Repeat("f", 8)}
	b, err := full.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	checkDecode(t, DecodeIdentifyController, b, full)
}

func TestTypeNames(t *testing.T) { // as sysfs has them
	for want, got := range map[string]string{
		"reserved": ControllerUnknown.String(), "io": ControllerIO.String(),
		"discovery": ControllerDiscovery.String(), "admin": ControllerAdmin.String(), "9": ControllerType(9).String(),
		"none": DCTypeNone.String(), "ddc": DCTypeDDC.String(), "cdc": DCTypeCDC.String(), "3": DCType(3).String(),
		"register": TaskRegister.String(), "deregister": TaskDeregister.String(), "update": TaskUpdate.String(),
		"connect": FCConnect.String(), "fabrics-0x77": FCType(0x77).String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzDecodeIdentifyController(f *testing.F) {
	b, err := IdentifyController{Serial: "s", SubNQN: "nqn.a"}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Repeat([]byte("x"), IdentifySize))
	f.Fuzz(func(t *testing.T, b []byte) { checkFixedPoint(t, DecodeIdentifyController, b) })
}
