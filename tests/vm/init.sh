#!/bin/sh
# The virtual machine's first program: makes a small system, runs what the kernel command line names, ends.
export PATH=/bin:/usr/sbin:/usr/bin:/sbin LC_ALL=C HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
while read -r module; do
    modprobe "$module" || echo "vm: no module $module"
done </etc/modules
ip link set lo up
for word in $(cat /proc/cmdline); do
    case "$word" in
    vm.folder=*) folder=${word#vm.folder=} ;;
    vm.python=*) python=${word#vm.python=} ;;
    esac
done
cd "$folder" || exit 1
echo "vm: booted"
"$python" -m tests.vm.inside
echo "vm: ended $?"
poweroff -f
