# SPDX-License-Identifier: Apache-2.0
#
# For scripts that run inside a uml-run guest: thin pools and network cuts.
export DM_DISABLE_UDEV=1

# lvm_pool DEVICE SIZE VG POOL [lvcreate ARGUMENTS...]
lvm_pool() {
  local device=$1 size=$2 group=$3 pool=$4
  shift 4
  pvcreate -qq "$device" >/dev/null && vgcreate -qq "$group" "$device" >/dev/null &&
    lvcreate -qq -L "$size" -T "$group/$pool" "$@" >/dev/null 2>&1
}

# quietly COMMAND...: what LVM prints only matters when it fails.
quietly() {
  local output
  output=$("$@" 2>&1 </dev/null) || {
    echo "failed: $*: $output" >&2
    return 1
  }
}

# The guest's loopback drops every packet until it is healed.
loopback_cut() { tc qdisc replace dev lo root netem loss 100%; }
loopback_heal() { tc qdisc del dev lo root; }
