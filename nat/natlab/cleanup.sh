# cleanup.sh ID DIR ENTRY [wait] - remove everything that the lab ID made.
#
# It is the only way in which a lab is taken down. With "wait" it is the lab's
# janitor: it sleeps until its standard input ends, which the kernel sees to
# when the owner closes the lab, and also when the owner dies, by whatever
# means, so that even a killed run leaves nothing behind.
id=$1 dir=$2 entry=$3
if [ "${4-}" = wait ]; then
	trap '' INT TERM HUP
	cat >/dev/null
fi

spaces() {
	for f in /run/netns/wl"$id"-*; do
		if [ -e "$f" ]; then echo "${f##*/}"; fi
	done
}

# Twice: a process may have started another one while the list was made.
for round in 1 2; do
	for ns in $(spaces); do
		pids=$(ip netns pids "$ns" 2>/dev/null)
		if [ -n "$pids" ]; then kill -9 $pids 2>/dev/null; fi
	done
done
for ns in $(spaces); do
	ip netns del "$ns"
done
for group in /sys/fs/cgroup/cpu/warren-natlab-"$id" /sys/fs/cgroup/warren-natlab-"$id"; do
	# Those that were killed may be there for a moment, on a busy machine for seconds.
	for wait in $(seq 100); do
		if [ ! -d "$group" ] || rmdir "$group" 2>/dev/null; then break; fi
		sleep 0.1
	done
done
rm -rf "$dir"
rm -rf "$entry"
rmdir "${entry%/*}" 2>/dev/null # the registry, with the last lab in it
exit 0
