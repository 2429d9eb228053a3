#!/bin/sh
# install.sh build|test|full|aarch64: installs the Debian packages that building, testing, the full check, or building
# for 64-bit ARM needs and that are missing.  Asks for root only when something is; quick when nothing is.
# aarch64 also makes arm64 one of dpkg's architectures.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case ${1:-build} in
build) kinds='build' ;;
test) kinds='build|test' ;;
full) kinds='build|test|full' ;;
aarch64) kinds='aarch64' ;;
*) echo "install.sh: '$1' is none of build, test, full and aarch64" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "attnplug: not a Debian system; install by hand what tools/lib/packages lists" >&2
    exit 0
fi

missing=
native=$(dpkg --print-architecture)
# shellcheck disable=SC2013 # names have no spaces
for package in $(sed -nE "s/^($kinds) //p" "$here/packages"); do
    # For the architecture that is named, else this machine's: both may be there, for cross-building.
    case $package in *:*) wanted=${package#*:} ;; *) wanted=$native ;; esac
    dpkg-query -W -f '${Architecture} ${db:Status-Status}\n' "$package" 2>/dev/null |
        grep -qxE "($wanted|all) installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "attnplug: installing$missing" >&2
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
    echo "attnplug: root is needed to install; as root: apt-get install$missing" >&2
    exit 1
fi
# shellcheck disable=SC2086
{
    [ "$kinds" != aarch64 ] || $as_root dpkg --add-architecture arm64
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
} >/dev/null
