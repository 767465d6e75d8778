#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# system-test: host
#
# Checks certs/make-certs by what openssl says of its output.
make_certs="$(cd "$(dirname "$0")/../.." && pwd)/certs/make-certs"
work=$(mktemp -d /tmp/certs-test.XXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
expect() { # WHAT GOT WANTED
  if [ "$2" = "$3" ]; then
    echo "ok      $1"
  else
    echo "FAILED  $1: got <$2>, expected <$3>"
    failures=$((failures + 1))
  fi
}
field() { openssl x509 -in "$1" -noout -ext "$2" | sed -n '2s/^ *//p'; }
fails() { # WHAT STATUS ARGUMENTS...: and nothing changes
  local what=$1 status=$2 before
  before=$(find . -type f | sort | xargs -r sha256sum)
  shift 2
  "$make_certs" "$@" >/dev/null 2>&1
  expect "$what" "$?" "$status"
  expect "  and changes nothing" "$(find . -type f | sort | xargs -r sha256sum)" "$before"
}

fails "no arguments" 2
fails "a name with a slash" 2 pki ../evil
fails "a host with a newline" 2 pki $'nas1,a\nb'
fails "a host that adds a URI" 2 pki "nas1,URI:spiffe://snapsync/node/nas2"
fails "the name ca" 2 pki ca
fails "a name twice" 2 pki nas1 nas1

"$make_certs" pki nas1 nas2,10.0.0.2,fd00::2,nas2.lan >/dev/null
expect "it works" "$?" 0
expect "files" "$(ls -A pki | xargs)" "ca.crt ca.key nas1.crt nas1.key nas2.crt nas2.key"
expect "keys are ours alone" "$(stat -c %a pki/*.key | sort -u)" 600
for purpose in sslserver sslclient; do
  expect "nas1 is good as $purpose" \
    "$(openssl verify -x509_strict -purpose $purpose -CAfile pki/ca.crt pki/nas1.crt)" "pki/nas1.crt: OK"
done
expect "its names" "$(field pki/nas1.crt subjectAltName)" \
  "URI:spiffe://snapsync/node/nas1, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:nas1"
expect "names with hosts" "$(field pki/nas2.crt subjectAltName)" \
  "URI:spiffe://snapsync/node/nas2, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:nas2, IP Address:10.0.0.2, IP Address:FD00:0:0:0:0:0:0:2, DNS:nas2.lan"
expect "uses" "$(field pki/nas1.crt extendedKeyUsage)" \
  "TLS Web Server Authentication, TLS Web Client Authentication"
expect "is no CA" "$(field pki/nas1.crt basicConstraints)" "CA:FALSE"
expect "curve" "$(openssl x509 -in pki/nas1.crt -noout -text | grep -c 'NIST CURVE: P-256')" 1
expect "key fits" "$(openssl x509 -in pki/nas1.crt -noout -pubkey)" \
  "$(openssl pkey -in pki/nas1.key -pubout)"
lives() { openssl x509 -in "$1" -noout -checkend $(($2 * 86400)) >/dev/null && echo yes || echo no; }
expect "lives 90 days" "$(lives pki/nas1.crt 89) $(lives pki/nas1.crt 91)" "yes no"
expect "the CA 10 years" "$(lives pki/ca.crt 3649) $(lives pki/ca.crt 3651)" "yes no"

fails "an existing key is kept" 1 pki nas1
fails "also when another name is new" 1 pki nas3 nas1
before=$(sha256sum pki/ca.* pki/nas2.*)
"$make_certs" --renew --days 5 pki nas1 >/dev/null
expect "renewing gives a new life" "$? $(lives pki/nas1.crt 4) $(lives pki/nas1.crt 6)" "0 yes no"
expect "by the same CA" "$(openssl verify -CAfile pki/ca.crt pki/nas1.crt)" "pki/nas1.crt: OK"
expect "and touches nothing else" "$(sha256sum pki/ca.* pki/nas2.*)" "$before"
"$make_certs" other nas1 >/dev/null
openssl verify -CAfile other/ca.crt pki/nas1.crt >/dev/null 2>&1
expect "another CA does not know it" "$?" 2
rm other/ca.key
fails "half a CA" 1 other nas2
cp pki/ca.key other/ca.key
fails "a CA's key of another" 1 other nas2

[ $failures -eq 0 ]
