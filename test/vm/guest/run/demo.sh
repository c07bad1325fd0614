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
	echo
}

controllers() {
	show stacctl ls --output=table
}

storage() {
	show lsblk --nodeps --output NAME,SIZE,MODEL --include 259
}

heading "Linux $(uname -r). A target offers three subsystems. The host is told where it is, and starts its daemons"
/stage/state.sh
show cat /etc/stas/stafd.conf
for daemon in stafd stacd; do
	show systemctl show --property=Id,ActiveState,StatusText "$daemon"
done

heading "stafd, the finder: its discovery controller, and how many entries it lists"
show stafctl ls --output=table

heading "stacd, the connector: the storage behind it is connected, and nobody typed 'nvme connect'"
controllers
storage

heading "A subsystem appears at the target: the discovery controller says so, and stacd connects it"
target_subsystem nqn.2026-11.org.example:delta
target_offer 1 nqn.2026-11.org.example:delta
wait_for 20 live_is 4
controllers

heading "One is withdrawn: its log page, read completely, no longer lists it, and stacd lets it go"
target_withdraw 1 nqn.2026-11.org.example:beta
wait_for 20 live_is 3
controllers

heading "The finder stops, and the connector is restarted: what is not known is not gone, all storage stays"
show systemctl stop stafd
show systemctl restart stacd
sleep 3
controllers
show systemctl start stafd

heading "The target dies: the paths are lost, the kernel keeps the controllers and tries again"
target_down 127.0.0.1 8009
wait_for 20 live_is 0
controllers

heading "It comes back, and so do the paths, under the same names"
target_up
wait_for 30 live_is 3
controllers
storage

heading "What the daemons said to the journal"
journalctl --no-hostname --output=short --lines=12 -u stafd -u stacd

printf '\nmake vm-shell gives a shell in a guest like this one.\n'
