#!/bin/sh
# Brings the guest into the state in which the demo begins to change things:
# a target with three subsystems, both daemons running.
set -eu
# shellcheck source-path=SCRIPTDIR source=target.sh
. /stage/target.sh

target_port 1 127.0.0.1 8009
for name in alpha beta gamma; do
	target_subsystem "nqn.2026-11.org.example:$name"
	target_offer 1 "nqn.2026-11.org.example:$name"
done
mkdir -p /etc/stas
cat >/etc/stas/stafd.conf <<EOF
[Global]
reconnect-delay = 2

[Controllers]
controller = transport=tcp;traddr=127.0.0.1;trsvcid=8009
EOF
cat >/etc/stas/stacd.conf <<EOF
[Global]
reconnect-delay = 2
EOF
systemctl start stafd stacd
wait_for 30 live_is 3
