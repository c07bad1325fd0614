#!/bin/sh
# Runs /stage/main with its output on the second serial port, then leaves the
# exit status and, if that is not 0, the journal as a tar on the third disk.
# The host waits for the first line, and takes all after it for output.
stty -F /dev/ttyS1 raw -echo
echo ready >/dev/ttyS1

# A sign of life on the console, without which the host takes it for hung.
while sleep 5; do printf . >/dev/ttyS0; done &

/stage/main </dev/null >/dev/ttyS1 2>&1
status=$?

mkdir -p /run/stas-vm-results
cd /run/stas-vm-results || exit 1
echo $status >status
if [ $status -ne 0 ]; then
	journalctl --boot --no-hostname --output=short-monotonic >journal.txt
	dmesg >dmesg.txt
	journalctl --boot --no-hostname --output=short-monotonic \
		--unit=stafd --unit=stacd >daemons.txt
fi
stty -F /dev/ttyS1 drain 2>/dev/null
tar -cf - . | dd of=/dev/vdc bs=64k iflag=fullblock conv=fsync status=none
