#!/usr/bin/env bash
# Work for worker.sh by psql: claims the workflows of a queue one by one, runs COMMAND with the id of each, and finishes
# those for which it succeeds. One for which it fails ends the worker, whose work is given back then.
#
#     DATABASE_URL=postgresql://127.0.0.1/flow ./worker.sh NAME ./work.sh QUEUE COMMAND [ARGUMENT...]
set -euo pipefail

readonly queue="$1"
shift

sql() {
    psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --set=worker="$LIVENESS_WORKER" "$@" \
        "$DATABASE_URL"
}

claim() {
    sql --set=queue="$queue" <<'SQL'
UPDATE workflow_execution
SET status = 'RUNNING', worker_id = :'worker', version = version + 1, updated_at = now()
WHERE id = (
    SELECT id FROM workflow_execution
    WHERE status = 'PENDING' AND queue = :'queue' ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, version
SQL
}

# Only what is still its own, in the version that the claim returned: another may have it by now.
finish() {
    sql --set=id="$1" --set=version="$2" <<'SQL'
UPDATE workflow_execution
SET status = 'COMPLETED', version = version + 1, updated_at = now()
WHERE id = :'id' AND status = 'RUNNING' AND worker_id = :'worker' AND version = :'version'
RETURNING id
SQL
}

while :; do
    claimed="$(claim)"
    if [[ -z "$claimed" ]]; then
        sleep 1
        continue
    fi
    IFS='|' read -r id version <<<"$claimed"
    echo "$LIVENESS_WORKER has claimed $id"
    "$@" "$id"
    if [[ -n "$(finish "$id" "$version")" ]]; then
        echo "$LIVENESS_WORKER has finished $id"
    else
        echo "$LIVENESS_WORKER has lost $id meanwhile" >&2
    fi
done
