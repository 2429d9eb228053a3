#!/bin/sh
# hardware.sh TEST [ARGUMENT...]: a test on a real Ascend NPU; skipped, by name, where there is none.
set -eu
if ! ls /dev/davinci[0-9]* >/dev/null 2>&1; then
    echo "skipped: no /dev/davinci*, so no Ascend NPU"
    exit 77
fi
exec "$@"
