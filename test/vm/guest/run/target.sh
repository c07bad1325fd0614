# shellcheck shell=sh
# The kernel's NVMe target, for scripts that run in the guest. Sourced.

nvmet=/sys/kernel/config/nvmet

# target_port ID ADDRESS SERVICE makes the target listen.
target_port() {
	mkdir "$nvmet/ports/$1"
	echo tcp >"$nvmet/ports/$1/addr_trtype"
	case $2 in
	*:*) echo ipv6 ;;
	*) echo ipv4 ;;
	esac >"$nvmet/ports/$1/addr_adrfam"
	echo "$2" >"$nvmet/ports/$1/addr_traddr"
	echo "$3" >"$nvmet/ports/$1/addr_trsvcid"
	# The kernel listens once a port offers something. This subsystem admits
	# no host, so that no discovery log shows it.
	mkdir -p "$nvmet/subsystems/nqn.2014-08.org.example:placeholder"
	target_offer "$1" nqn.2014-08.org.example:placeholder
}

# target_subsystem NQN [MIB] creates a subsystem with one namespace in memory.
target_subsystem() {
	mkdir "$nvmet/subsystems/$1"
	echo 1 >"$nvmet/subsystems/$1/attr_allow_any_host"
	mkdir -p /dev/shm/target
	truncate --size="${2:-64}M" "/dev/shm/target/$1"
	mkdir "$nvmet/subsystems/$1/namespaces/1"
	echo "/dev/shm/target/$1" >"$nvmet/subsystems/$1/namespaces/1/device_path"
	echo 1 >"$nvmet/subsystems/$1/namespaces/1/buffered_io"
	echo 1 >"$nvmet/subsystems/$1/namespaces/1/enable"
}

# target_offer PORT NQN... shows subsystems on a port.
target_offer() {
	port=$1
	shift
	for nqn; do
		ln -s "$nvmet/subsystems/$nqn" "$nvmet/ports/$port/subsystems/$nqn"
	done
}

# target_withdraw PORT NQN... takes subsystems off a port.
target_withdraw() {
	port=$1
	shift
	for nqn; do
		rm "$nvmet/ports/$port/subsystems/$nqn"
	done
}

# target_down ADDRESS SERVICE breaks all connections and refuses new ones, as
# a target that has died; target_up ends that.
target_down() {
	nft "table inet stas_target {
		chain input {
			type filter hook input priority filter;
			ip daddr $1 tcp dport $2 reject with tcp reset
		}
	}"
	ss --kill --no-header --tcp state connected src "$1:$2" >/dev/null
	ss --kill --no-header --tcp state connected dst "$1:$2" >/dev/null
}

target_up() {
	nft delete table inet stas_target
}

# wait_for SECONDS COMMAND... repeats a command until it succeeds.
wait_for() {
	end=$(($(date +%s) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ "$(date +%s)" -ge "$end" ]; then
			echo "this did not happen in time: $*" >&2
			return 1
		fi
		sleep 0.2
	done
}

# live_count prints the number of I/O controllers that are live.
live_count() {
	count=0
	for dir in /sys/class/nvme/nvme*; do
		[ "$(cat "$dir/cntrltype" 2>/dev/null)" = io ] || continue
		[ "$(cat "$dir/state" 2>/dev/null)" = live ] && count=$((count + 1))
	done
	echo $count
}

# live_is N succeeds when N I/O controllers are live.
live_is() { [ "$(live_count)" -eq "$1" ]; }
