#!/bin/sh
# header_alone.sh HEADER c|c++ STANDARD SOURCE_ROOT: the header compiles alone, without a warning.
set -eu
header=$1 language=$2 standard=$3 root=$4
case $language in
c) compiler=${CC:-cc} ;;
c++) compiler=${CXX:-c++} ;;
esac
flags="-std=$standard -Wall -Wextra -Werror -fsyntax-only"
[ "$standard" = c++98 ] || flags="$flags -pedantic"
if [ "$header" = attn_abi.h ]; then
    includes="-I$root/abi"
else
    includes="-I$root/abi -I$root/host-stub/loader -I$root/host-stub/router -I$root/host-stub/compute -I$root/host-stub/pipeline"
fi
# shellcheck disable=SC2086
printf '#include "%s"\n' "$header" | $compiler -x "$language" $flags $includes -
