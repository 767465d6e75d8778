#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# system-test: host
#
# The contract of all targets, for thin volumes: on real LVM, in a guest. The
# test program is the one that checks files and block devices on the host.
#
#   targets_test.sh [GoogleTest filter]
cd "$(dirname "$(readlink -f "$0")")/../.." || exit 1

# Here on the host: builds the program and boots the guest.
host() { # FILTER
  cmake --preset release >/dev/null &&
    cmake --build --preset release --target targets_contract_test >&2 || exit 1
  exec tests/system/uml-run --disk :260M --timeout 1800 -- \
    "$PWD/tests/system/targets_test.sh" --guest \
    "$PWD/build/release/bin/targets_contract_test" "$1"
}

guest() { # PROGRAM FILTER
  . tests/system/guest-lib.sh
  lvm_pool /dev/ubda 200M targets pool --poolmetadatasize 4M || exit 1
  # Nothing may be skipped in here: then something is not what it should be.
  SNAPSYNC_TEST_GROUP=targets "$1" --gtest_filter="$2" | tee /tmp/output
  [ "${PIPESTATUS[0]}" -eq 0 ] && ! grep 'needs LVM' /tmp/output
}

if [ "${1:-}" = --guest ]; then
  guest "$2" "$3"
else
  host "${1:-*Thin*}"
fi
