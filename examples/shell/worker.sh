#!/usr/bin/env bash
# A worker with nothing but publishes to NATS, from bash: no client to install.
#
#     NATS=127.0.0.1:4222 ./worker.sh NAME COMMAND [ARGUMENT...]
#
# This process becomes COMMAND; another one beats for it. The two share a pipe to which nobody writes, and which ends
# when the last process of COMMAND has ended, however it did: then nothing is beaten for any more, and the goodbye gives
# its work back at once. Killed together with COMMAND (the machine is lost, PID 1 of a container ends), it says nothing,
# and the ttl finds that. COMMAND must not close the descriptor 9 that it inherits, as sudo does: it would count as over.
#
# Needs bash 4 and Linux; speaks to a NATS server without TLS. Where Python may be installed, `liveness run` does all of
# this and more. COMMAND finds LIVENESS_WORKER, the name to claim with; see work.sh.
set -euo pipefail

if (($# < 2)); then
    echo "usage: NATS=HOST:PORT $0 NAME COMMAND [ARGUMENT...]" >&2
    exit 2
fi
readonly nats="${NATS:-127.0.0.1:4222}" ttl="${TTL:-10}" interval="${INTERVAL:-2}"
export LIVENESS_WORKER="$1"
shift
# Tells this process from others of the name, whose work is given back when this one is heard.
LIVENESS_INCARNATION="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
export LIVENESS_INCARNATION

# Hundredths of a second by a clock that nobody sets.
now() {
    local up
    read -r up _ </proc/uptime
    echo "${up/./}"
}
born="$(now)"
readonly born

# Who speaks, and since when.
who() {
    local age=$(($(now) - born))
    printf '"incarnation":"%s","uptime":%d.%02d' "$LIVENESS_INCARNATION" $((age / 100)) $((age % 100))
}

state() {
    printf '{%s,"ttl":%s,"interval":%s}' "$(who)" "$ttl" "$interval"
}

# What is said, and its payload, which has to be ASCII: its length is counted in bytes.
publish() {
    printf 'PUB liveness.%s.%s %d\r\n%s\r\n' "$1" "$LIVENESS_WORKER" "${#2}" "$2" >&3
}

ask() {
    unanswered=$((unanswered + 1))
    printf 'PING\r\n' >&3
}

# Whether the worker lives for so many seconds more.
lives_for() {
    local status=0
    read -r -t "$1" || status=$?
    # Above 128 the time was over; else the pipe was.
    ((status > 128))
}

# Take what the server has said. Fails when the connection has ended.
listen() {
    local line
    while read -r -t 0 -u 3; do
        IFS= read -r -t 2 -u 3 line || return
        case "$line" in
            PING*) printf 'PONG\r\n' >&3 || return ;;
            PONG*) unanswered=$((unanswered - 1)) ;;
            -ERR*) echo "NATS: $line" >&2 ;;
        esac
    done
}

# Beat on one connection, descriptor 3, to the worker's end. Fails when the connection ends before.
beat() {
    local line unanswered=0
    IFS= read -r -t 5 -u 3 line && [[ "$line" == INFO* ]] || return
    printf 'CONNECT {"verbose":false,"pedantic":false,"lang":"bash","version":"1","name":"worker"}\r\n' >&3 || return
    publish hello "$(state)" || return
    # The worker waits for this, or is past it.
    echo heard 2>/dev/null || true
    # A server that is gone without a word does not answer.
    while ((unanswered < 3)) && publish heartbeat "$(state)" && ask; do
        if ! lives_for "$interval"; then
            publish goodbye "{$(who)}" && ask || return
            # With the last answer it has the goodbye; a connection that is closed before may take it along.
            while ((unanswered > 0)) && IFS= read -r -t 2 -u 3 line; do
                if [[ "$line" == PONG* ]]; then unanswered=$((unanswered - 1)); fi
            done
            return 0
        fi
        listen || return
    done
    return 1
}

heart() {
    # What ends the worker must not end this one first; and a connection that ends is an error like others.
    trap '' HUP INT QUIT TERM PIPE
    until { beat; } 3<>"/dev/tcp/${nats%:*}/${nats##*:}"; do
        lives_for 1 || return 0
    done
}

coproc heart
# Opened anew, since bash closes its own in COMMAND.
exec 9>"/proc/self/fd/${COPROC[1]}"
# It claims nothing before it is heard; but where NATS is away, it begins all the same.
read -r -t 1 -u "${COPROC[0]}" _ || true
exec "$@"
