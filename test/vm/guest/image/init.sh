#!/bin/busybox sh
# shellcheck shell=dash
# First program of the guest: mounts the root disk, unpacks onto it what the
# host sent on the second disk, and hands over to systemd, for which all that
# has been installed all along.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
for module in /modules/*; do
	# A module may be there already, as a dependency of one before.
	$bb insmod "$module" 2>/dev/null
done
tries=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
	tries=$((tries + 1))
	if [ $tries -gt 300 ]; then
		echo "stas-vm: the disks do not appear"
		$bb poweroff -f
	fi
	$bb usleep 100000
done
if ! $bb mount -t ext4 /dev/vda /root || ! $bb tar -x -f /dev/vdb -C /root; then
	echo "stas-vm: the root file system cannot be prepared"
	$bb poweroff -f
fi
$bb mount --move /dev /root/dev
exec $bb switch_root /root /sbin/init
