#!/bin/sh
# What a container runs: `sensorium` with the arguments that it was given. Prefect's workers give a command of their
# own, `prefect flow-run execute`.
set -eu
if [ "${1:-}" = prefect ]; then
    exec "$@"
fi
exec sensorium "$@"
