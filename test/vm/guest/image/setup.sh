#!/bin/sh
# Turns the fresh root file system of mmdebstrap, in which it runs by chroot,
# into the guest: quick to boot, the same at every boot, quiet.
set -eu

# What a guest without network, display, firmware and users does not need.
# udev, dbus, the journal and configfs stay as the distribution ships them.
systemctl mask --quiet \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
	systemd-tmpfiles-clean.timer e2scrub_all.timer e2scrub_reap.service \
	systemd-binfmt.service systemd-firstboot.service systemd-hwdb-update.service \
	systemd-journal-catalog-update.service systemd-machine-id-commit.service \
	systemd-network-generator.service systemd-pstore.service \
	systemd-pcrmachine.service systemd-pcrphase.service \
	systemd-pcrphase-sysinit.service systemd-random-seed.service \
	systemd-tpm2-setup.service systemd-tpm2-setup-early.service \
	systemd-update-done.service systemd-update-utmp.service \
	systemd-logind.service ldconfig.service uuidd.socket \
	systemd-ask-password-console.path systemd-ask-password-wall.path \
	dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount \
	sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount
mkdir -p /etc/systemd/system-generators
for generator in gpt-auto hibernate-resume rc-local ssh system-update sysv tpm2; do
	ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done
systemctl set-default --quiet multi-user.target

# nvme-cli connects by itself what a discovery controller announces. A case
# could not tell its controllers from those of stacd, and would pass though
# stacd did nothing. A case about the udev rule unmasks the first of these.
systemctl mask --quiet \
	nvmf-connect@.service nvmf-autoconnect.service nvmefc-boot-connections.service

# A case that needs Avahi starts it.
systemctl disable --quiet avahi-daemon.service avahi-daemon.socket

cat >/etc/modules-load.d/stas-vm.conf <<EOF
nvme-tcp
nvmet-tcp
EOF

# All of the journal, in memory: it is read back after a failure only.
mkdir -p /etc/systemd/journald.conf.d
cat >/etc/systemd/journald.conf.d/stas-vm.conf <<EOF
[Journal]
Storage=volatile
RateLimitIntervalSec=0
RuntimeMaxUse=100M
EOF

# The same host at every boot.
echo stas-vm >/etc/hostname
echo 73746173766d00000000000000000001 >/etc/machine-id
mkdir -p /etc/nvme
echo nqn.2014-08.org.nvmexpress:uuid:73746173-766d-4000-8000-000000000001 >/etc/nvme/hostnqn
echo 73746173-766d-4000-8000-000000000001 >/etc/nvme/hostid

# An initrd of busybox and the modules of the root disk, in place of the
# distribution's, which takes three seconds longer to reach systemd.
version=$(ls /lib/modules)
initrd=$(mktemp -d)
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/modules" "$initrd/root"
cp "$(command -v busybox)" "$initrd/bin/busybox"
install -m 0755 /stas-vm-init "$initrd/init"
rm /stas-vm-init
number=100
for module in virtio_pci virtio_blk ext4; do
	# Built-in modules show as "builtin"; dependencies come first.
	modprobe --set-version "$version" --show-depends "$module" |
		while read -r kind file _; do
			if [ "$kind" = insmod ]; then echo "$file"; fi
		done
done >"$initrd/list"
while read -r file; do
	number=$((number + 1))
	name=$initrd/modules/$number-$(basename "$file")
	case $file in
	*.xz) xz -dc "$file" >"${name%.xz}" ;;
	*.zst) zstd -qdc "$file" >"${name%.zst}" ;;
	*) cp "$file" "$name" ;;
	esac
done <"$initrd/list"
rm "$initrd/list"
(cd "$initrd" && find . | busybox cpio -o -H newc) >/boot/stas-vm-initrd
rm -r "$initrd"
mv "/boot/vmlinuz-$version" /boot/stas-vm-kernel
