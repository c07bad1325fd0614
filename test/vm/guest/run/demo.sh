#!/bin/sh
# Shows what STAS does, on a real kernel.
set -eu
# shellcheck source-path=SCRIPTDIR source=target.sh
. /stage/target.sh

heading() { printf '\n== %s\n\n' "$*"; }

# show COMMAND... shows a command and what it prints.
show() {
	printf '# %s\n' "$*"
	"$@"
}

storage() { show lsblk --nodeps --output NAME,SIZE,MODEL; }

heading "A storage target offers three subsystems; the host is told where, and starts its daemons"
/stage/state.sh
show cat /etc/stas/stafd.conf
show systemctl --no-pager --lines=0 status stafd stacd

heading "stafd: the discovery controllers it is connected to"
show stafctl ls

heading "stacd: what they list, connected as storage"
show stacctl ls
storage

heading "A subsystem appears at the target"
target_subsystem nqn.2026-11.org.example:delta
target_offer 1 nqn.2026-11.org.example:delta
wait_for 20 live_is 4
show stacctl ls

heading "One is withdrawn"
target_withdraw 1 nqn.2026-11.org.example:beta
wait_for 20 live_is 3
show stacctl ls

heading "The target dies; the kernel keeps the paths and tries again"
target_down 127.0.0.1 8009
wait_for 20 live_is 0
show grep . /sys/class/nvme/nvme*/state

heading "It comes back, and so do the paths"
target_up
wait_for 30 live_is 3
show grep . /sys/class/nvme/nvme*/state
storage
