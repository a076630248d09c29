# machine.sh NAMESPACE DIR BINARY [RESOLVED] - boot systemd in a network namespace, and hold it until standard input ends.
#
# With RESOLVED, a directory with the files of systemd's own resolver, that runs and is asked.
# What it sees is this machine's root directory beneath a layer in memory, without this machine's services, jobs and meshes.
# All of it is inside namespaces of mounts and processes that end with it; of the control groups, which do not, it takes away its own.
ns=$1 dir=$2 binary=$3 resolved=$4
exec 3<&0 # a command in the background has no standard input of its own
groups=""
for g in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
	[ ! -w "$g/cgroup.procs" ] || groups="$groups $g/$ns"
done

boot=$(cat <<'SCRIPT'
set -e
ns=$1 dir=$2 binary=$3 resolved=$4
mount --make-rprivate /
# nspawn keeps notes there, of machines of which nobody else shall know.
mkdir -p /run/systemd && mount -t tmpfs none /run/systemd
mkdir -p "$dir/box"
mount -t tmpfs -o size=256m none "$dir/box"
cd "$dir/box"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
rm -rf .dockerenv run/.containerenv etc/systemd/system etc/init.d etc/rc?.d etc/rc.local etc/cron* var/spool/cron var/lib/warren etc/warren etc/machine-id etc/fstab
mkdir etc/systemd/system etc/init.d
: >etc/machine-id
: >etc/fstab
install -m 0755 "$binary" usr/local/bin/warren
if [ -n "$resolved" ]; then
	tar -C "$resolved" -cf - . | tar -xf - --keep-directory-symlink
	chroot . systemd-sysusers
	mkdir -p etc/systemd/system/multi-user.target.wants
	ln -s /lib/systemd/system/systemd-resolved.service etc/systemd/system/multi-user.target.wants/
	ln -s /lib/systemd/system/systemd-resolved.service etc/systemd/system/dbus-org.freedesktop.resolve1.service
	rm -f etc/resolv.conf
	ln -s /run/systemd/resolve/stub-resolv.conf etc/resolv.conf
fi
cd ..
while :; do
	status=0
	systemd-nspawn -q --boot --register=no --keep-unit --network-namespace-path="/run/netns/$ns" -D root -M "$ns" \
		--bind=/dev/net/tun --capability=CAP_NET_ADMIN --console=pipe --link-journal=no </dev/null || status=$?
	[ $status = 133 ] || exit $status # 133: it was rebooted
	echo "rebooted"
done
SCRIPT
)

sh -c '
	for g in $5; do mkdir -p "$g" && echo $$ >"$g/cgroup.procs"; done
	exec unshare --mount --pid --fork --kill-child --mount-proc sh -c "$4" sh "$1" "$2" "$3" "$6"
' sh "$ns" "$dir" "$binary" "$boot" "$groups" "$resolved" </dev/null 3<&- &
pid=$!
# The end of the machine ends the wait for the owner, too.
{ cat <&3 >/dev/null; kill -9 $pid 2>/dev/null; } &
waiter=$!
wait $pid
status=$?
kill $waiter 2>/dev/null
for g in $groups; do
	n=0
	while [ -d "$g" ] && [ $n -lt 50 ]; do
		find "$g" -depth -type d -exec rmdir {} + 2>/dev/null
		[ ! -d "$g" ] || sleep 0.1
		n=$((n + 1))
	done
done
exit $status
