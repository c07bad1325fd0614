#!/bin/sh
# Puts the programs and units of Debian's nvme-stas, whose names the payload
# takes for STAS, beside them: to be run as peer-stafd and peer-stacd. What
# they call themselves, own on the bus and keep in /run stays the same.
set -eu

peer=/usr/lib/peer
mkdir -p $peer
for program in /usr/sbin/stafd /usr/sbin/stacd /usr/bin/stafctl /usr/bin/stacctl /usr/bin/stasadm; do
	mv $program $peer/
done
units=/usr/lib/systemd/system
systemctl disable --quiet stafd.service stacd.service
for daemon in stafd stacd; do
	sed "s|/usr/sbin/$daemon|$peer/$daemon|" $units/$daemon.service >$units/peer-$daemon.service
	grep -q "^ExecStart=.*$peer/$daemon" $units/peer-$daemon.service
	rm $units/$daemon.service
done
rm -f $units/stas-config*
