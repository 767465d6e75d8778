#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Process 1 of the guest that uml-run boots; nothing for a host. A fork and exec
# costs 30 ms in there, so there are few of them. uml-run leaves its arguments in
# $uml_run_dir/vars: SHARES SCRATCH LIBSYSTEMD WORKING_DIRECTORY ENVIRONMENT COMMAND.
# Serial lines: 0 stdout, 1 stderr, 2 what uml-run needs to know.
[ $$ -eq 1 ] || exit 1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
source "$uml_run_dir/vars" || exit 1
mount -t proc proc /proc
read -r release < /proc/sys/kernel/osrelease
modules=/usr/lib/uml/modules
insmod $modules/$release/kernel/fs/overlayfs/overlay.ko

# The root: an overlay, the host's files below (never written), a tmpfs above.
mount -t tmpfs -o mode=755,size=90% tmpfs /tmp && cd /tmp && mkdir up work root
mount -t overlay -o lowerdir=/,upperdir=up,workdir=work overlay root &&
  cd root || exit 1
table="proc /tmp/root/proc proc defaults 0 0
sysfs /tmp/root/sys sysfs defaults 0 0
dev /tmp/root/dev devtmpfs mode=755 0 0
run /tmp/root/run tmpfs mode=755 0 0
devpts /tmp/root/dev/pts devpts newinstance,ptmxmode=0666,X-mount.mkdir 0 0
shm /tmp/root/dev/shm tmpfs mode=1777,X-mount.mkdir 0 0
old /tmp/root/run/uml tmpfs mode=755,X-mount.mkdir 0 0
$modules /tmp/root/usr/lib/modules none bind,X-mount.mkdir 0 0
"
for directory in "${SHARES[@]}"; do
  escaped=${directory// /\\040}
  table+="none /tmp/root$escaped hostfs $escaped,X-mount.mkdir 0 0
"
done
echo "$table" > /tmp/fstab
mount -a -T /tmp/fstab || exit 1
mkdir run/lock run/uml/old run/lvm
pivot_root . run/uml/old && cd / && umount -l run/uml/old || exit 1
# One process for what ln(1), rm(1) and hostname(1) would need seven for; 170 is
# sethostname. LVM looks at all that is in /dev, again and again: without 580
# terminals that nobody uses it takes a tenth less.
perl -e '
  unlink grep { !/tty(S.)?$/ } glob "/dev/tty* /dev/pty*";
  symlink "/proc/self/fd", "/dev/fd";
  symlink "fd/$_->[0]", "/dev/$_->[1]"
      for [0, "stdin"], [1, "stdout"], [2, "stderr"];
  symlink "/proc/mounts", "/etc/mtab";
  my $name = "uml"; syscall(170, $name, 3);
  my $lvm = "$ENV{uml_run_dir}/uml_lvm";
  for my $command (-e $lvm ? qw(lvs vgs pvs lvcreate lvchange lvremove lvconvert lvrename
                                lvextend vgcreate vgchange vgcfgbackup) : ()) {
    unlink "/usr/sbin/$command";
    symlink $lvm, "/usr/sbin/$command";
  }'
# Before descriptor 3 is open: there they listen.
if [ -e "$uml_run_dir/uml_lvm_server" ]; then
  "$uml_run_dir/uml_lvm_server" 0 &
  "$uml_run_dir/uml_lvm_server" 1 &
fi
ip link set lo up
# Nobody is told of devices; else the kernel starts a program for each change.
echo > /sys/kernel/uevent_helper
exec 3>/dev/ttyS0 4>/dev/ttyS1 5>/dev/ttyS2 8<>/dev/ttyS3
for fd in 3 4 5; do stty raw -echo <&$fd; done

# There is no udev: LVM looks through /dev itself and makes its nodes itself. In
# its usual place, since programs may run LVM's with a clean environment. Nothing
# is locked in memory (mlock_filter): there is no swap.
mkdir -p /etc/lvm
echo 'config { checks=0 }
devices { dir="/dev" scan=["/dev"] obtain_device_list_from_udev=0
  external_device_info_source="none" use_devicesfile=0 sysfs_scan=1
  multipath_component_detection=0 md_component_detection=0
  issue_discards=0 types=["ubd",16] hints="none" scan_lvs=0 }
global { use_lvmpolld=0 use_lvmlockd=0 event_activation=0 notify_dbus=0
  thin_check_options=["-q"] }
activation { reserved_memory=0 reserved_stack=0 mlock_filter=["/","["] udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0
  checks=0 thin_pool_autoextend_threshold=100 }
backup { backup=1 archive=0 backup_dir="/run/uml/lvmbackup" }' > /etc/lvm/lvm.conf
[ -z "$LIBSYSTEMD" ] ||
  cp --remove-destination "$uml_run_dir/libsystemd.so.0" "$LIBSYSTEMD" || exit 1
echo "$uml_run_dir/uml_prefault.so.0" > /etc/ld.so.preload
export DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1
export LC_ALL=C HOME=/root USER=root LOGNAME=root TMPDIR=/tmp UML_RUN=1
unset TERM uml_run_dir mem umid uml_dir
modprobe dm-thin-pool
ready=$?
for entry in "${SCRATCH[@]}"; do # DEVICE:DIRECTORY
  mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 \
    "${entry%%:*}" && mkdir -p "${entry#*:}" &&
    mount "${entry%%:*}" "${entry#*:}" || ready=1
done

if [ $ready -ne 0 ]; then
  status=125
  echo "uml-run: the guest's set-up failed" >&4
else
  exec 6> >(exec cat >&3)
  copier_out=$!
  exec 7> >(exec cat >&4)
  copier_err=$!
  echo start >&5
  (
    cd "$WORKING_DIRECTORY" || exit 126
    for entry in "${ENVIRONMENT[@]}"; do export "$entry"; done
    exec 3>&- 4>&- 5>&- 8>&-
    exec "${COMMAND[@]}" </dev/null >&6 2>&7 6>&- 7>&-
  )
  status=$?
  exec 6>&- 7>&-
  # Children that COMMAND left behind may hold the pipes: a second, no more.
  for _ in {1..100}; do
    kill -0 $copier_out 2>/dev/null || kill -0 $copier_err 2>/dev/null || break
    read -t 0.01 -u 8
  done
fi
exec 3>&- 4>&- # drains
sync &
syncing=$!
for _ in {1..1000}; do
  kill -0 $syncing 2>/dev/null || break
  read -t 0.01 -u 8
done
echo "exit $status" >&5
exec 5>&-
perl -e 'syscall(169, 0xfee1dead, 672274793, 0x4321fedc, 0)' # reboot: power off
read -t 1000 -u 8
