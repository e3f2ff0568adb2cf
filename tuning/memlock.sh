#!/bin/sh
# Knob:   memlock
# What:   Locked memory of the broker's process: 8 MiB, and 128 KiB per shard.
# Why:    Every shard's rings take about 64 KiB of it, counted per user. That of a process which just ended is given back up to 2 s later,
#         so that a restart needs it twice.
# Risk:   Without systemd it goes to every login of this machine.
# Effect: none measured on the reference machine
# Lasts:  until reverted
. "${0%/*}/knob.sh"

wanted() {
    shards_count=$(echo "$cores" | tr , '\n' | grep -c .) || :
    bytes=$((shards_count * 131072))
    [ "$bytes" -gt 8388608 ] || bytes=8388608
    echo "$bytes"
}

files_changed() { systemd_reload; }
check() { check_limit "Max locked memory" "$(wanted)" bytes; }
apply() { apply_limit "LimitMEMLOCK=$(wanted)" "memlock $(($(wanted) / 1024))"; }

knob_main "$@"
