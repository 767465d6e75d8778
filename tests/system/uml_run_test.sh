#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# system-test: host
#
# Checks uml-run itself: what a test in the guest relies on.
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d /tmp/uml-run-test.XXXXXX)
trap 'rm -rf "$work"' EXIT
failures=0
expect() { # WHAT GOT WANTED
  if [ "$2" = "$3" ]; then
    echo "ok      $1"
  else
    echo "FAILED  $1: got <$2>, expected <$3>"
    failures=$((failures + 1))
  fi
}
guest() { ./uml-run --mem 256M "$@"; }

out=$(guest -- sh -c 'echo out; echo err >&2; exit 7' 2>"$work/err")
expect "the command's status comes back" "$?" 7
expect "stdout comes back" "$out" out
expect "stderr comes back apart" "$(cat "$work/err")" err
guest -- sh -c 'echo c > /proc/sysrq-trigger; sleep 9' >/dev/null 2>&1
expect "a panic is 125" "$?" 125
guest --timeout 3 -- sleep 100 2>/dev/null
expect "a timeout is 124" "$?" 124

head -c 10000000 /dev/urandom > "$work/random"
mkdir "$work/sh are"
out=$(GTEST_X='a  b"c' guest --share "$work/sh are" -- bash -c '
  cat "$1" & cat "$1" >&2; wait
  printf "<%s>" "${@:2}" "$GTEST_X" > "$0/arguments"
  echo 2 > "$1.guest"; rm /etc/hostname' "$work/sh are" "$work/random" \
  "quo'te" '$HOME' '' 2>"$work/err" | cmp - "$work/random" && echo same)
expect "10 MB on stdout are exact" "$out" same
expect "10 MB on stderr are exact" "$(cmp "$work/err" "$work/random" && echo same)" same
expect "arguments, environment and share" "$(cat "$work/sh are/arguments")" \
  "<quo'te><\$HOME><><a  b\"c>"
expect "the host is untouched" \
  "$(ls "$work/random.guest" /etc/hostname 2>/dev/null)" /etc/hostname

# Vector registers belong to the program that filled them, though several take turns
# and each waits for pages.
hashes() {
  for _ in 1 2 3; do
    openssl dgst -r -sha256 "$work/random" & openssl dgst -r -blake2b512 "$work/random" &
    openssl dgst -r -sha1 "$work/random" &
  done
  wait
}
out=$(work=$work guest --env work -- bash -c "$(declare -f hashes); hashes" | sort)
expect "registers are kept" "$out" "$(hashes | sort)"

out=$(guest --disk "$work/disk:200M" --scratch /mnt/fast:64M -- bash -ec '
  . ./guest-lib.sh
  lvm_pool /dev/ubda 150M vg pool
  quietly lvcreate -V 80M -T vg/pool -n thin
  dd if=/dev/urandom of=/dev/vg/thin bs=64k count=4 oflag=direct status=none
  quietly lvcreate -s vg/thin -n frozen
  dd if=/dev/zero of=/mnt/fast/x bs=4096 count=1 oflag=direct status=none
  lvs --noheadings -o lv_name vg | xargs' 2>&1)
expect "LVM thin snapshots and O_DIRECT work" "$out" "frozen pool thin"
out=$(guest --disk "$work/disk" -- bash -ec '
  vgchange -qq -ay vg >/dev/null; ls /dev/vg/thin' 2>&1)
expect "a disk file keeps its content" "$out" /dev/vg/thin

# Others have a CPU, though not the first place on it: those before them have ended.
python3 -c '
import os, socket, time
cpus = sorted(os.sched_getaffinity(0))
held = [socket.socket(socket.AF_UNIX) for _ in range(8)]
for place, taken in enumerate(held, 1):
    taken.bind("\0uml-run.cpu%d.%d" % (cpus[0], place))
print(cpus[0], len(cpus), flush=True)
time.sleep(1000)' > "$work/held" &
holder=$!
until [ -s "$work/held" ]; do sleep 0.1; done
read -r full cpus < "$work/held"
for _ in 1 2 3 4 5; do
  [ "$cpus" -gt 1 ] || break
  ./uml-run --mem 256M -- sleep 1000 >/dev/null 2>&1 &
  runner=$!
  until on=$(pgrep -P $runner -x linux.uml); do sleep 0.1; done
  on=$(taskset -pc "${on%%$'\n'*}" | sed 's/.* //')
  kill $runner
  expect "a guest takes the CPU that fewest have" "$((on != full))" 1
done
kill $holder

setsid ./uml-run --mem 256M -- sleep 1000 <&- >/dev/null 2>&1 &
runner=$!
sleep 3
directories=$(pgrep -P $runner -x linux.uml | xargs -I{} readlink /proc/{}/cwd)
kill -KILL $runner
wait $runner 2>/dev/null
for _ in {1..50}; do
  [ -d "$directories" ] || break
  sleep 0.1
done
expect "a killed uml-run leaves nothing" "$directories $(ls -d "$directories" 2>/dev/null)" \
  "$directories "

[ $failures -eq 0 ]
