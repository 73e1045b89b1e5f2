#!/usr/bin/env bash
# Installs what the build, the demo and the tests need, through apt where it may, and else says
# what is missing. Arguments: which groups are wanted (build, demo, etcd, redis, mariadb, chaos, test).
set -euo pipefail

missing=()
need() { # need PACKAGE COMMAND...: the package is missing if none of the commands is there
  local package=$1 command
  shift
  for command in "$@"; do
    if command -v "$command" >/dev/null 2>&1 || [ -e "$command" ]; then return 0; fi
  done
  missing+=("$package")
}

postgres=(/usr/lib/postgresql/*/bin/postgres)
for group in "$@"; do
  case $group in
    build)
      need protobuf-compiler protoc
      # What protoc itself includes: only recommended by its package, and so not installed with it.
      need libprotobuf-dev /usr/include/google/protobuf/descriptor.proto
      need gcc cc gcc
      need fuse3 fusermount3
      ;;
    demo)
      need postgresql "${postgres[@]}"
      need postgresql-client psql
      ;;
    etcd) need etcd-server etcd; need etcd-client etcdctl ;;
    redis) need redis-server redis-server; need redis-tools redis-cli ;;
    mariadb) need mariadb-server mariadbd /usr/sbin/mariadbd; need mariadb-client mariadb-check ;;
    chaos) need iproute2 ip; need nftables nft /usr/sbin/nft; need e2fsprogs mkfs.ext4 /usr/sbin/mkfs.ext4 ;;
    test)
      need iproute2 ip
      need procps pgrep
      need attr setfattr
      need e2fsprogs mkfs.ext4 /usr/sbin/mkfs.ext4
      need mariadb-server-core mariadbd /usr/sbin/mariadbd
      need mariadb-client-core mariadb
      need python3 python3
      ;;
    *) echo "packages.sh: unknown group $group" >&2; exit 2 ;;
  esac
done

[ ${#missing[@]} -eq 0 ] && exit 0
echo "missing packages: ${missing[*]}" >&2
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
  echo "install them first, on Debian or Ubuntu: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
# A package must not start servers of its own here: the demo and the tests start theirs.
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
apt-get update -qq </dev/null >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
