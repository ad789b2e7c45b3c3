#!/bin/sh
# Installs the Debian packages that are missing. Usage: tools/install-deps.sh [build|all] [--check]
#   build    what the program and its tests need (default)
#   all      also what lint and fuzzing need
#   --check  install nothing; list what is missing, exit 1 if anything is
# Needs root or a sudo that asks no password; otherwise it prints the command for you to run.
set -eu

packages="gcc libc6-dev make cmake ninja-build pkg-config python3 libjansson-dev libpcre2-dev libutf8proc-dev libedit-dev libmicrohttpd-dev
libcmocka-dev"
tools="clang-14 libclang-rt-14-dev clang-format-14 cppcheck"
check=no
for argument in "$@"; do
    case $argument in
    build) ;;
    all) packages="$packages $tools" ;;
    --check) check=yes ;;
    *) echo "usage: tools/install-deps.sh [build|all] [--check]" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    # Not Debian: CMake will name what it does not find.
    exit 0
fi
missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ $check = yes ]; then
    echo "missing:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "nano-vllm needs some packages; please run:  sudo $install" >&2
    exit 1
fi
echo "installing:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run()
{
    $sudo env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null
}
# The package lists may be absent or old: refresh them only when the first try fails.
if ! run $install; then
    run apt-get update -q || { cat "$log" >&2; exit 1; }
    run $install || { cat "$log" >&2; exit 1; }
fi
