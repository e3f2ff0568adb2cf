#!/bin/sh
# Knob:   scheduler
# What:   The I/O scheduler of the log directories' drives: none.
# Why:    A scheduler puts reads before writes or holds requests back to sort them; a commit group is a single write that clients wait for.
# Risk:   On a spinning disk, and where others share the drive, they may get less of it.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

schedulers() {
    for drive in $(drives); do [ ! -e "$drive/queue/scheduler" ] || echo "$drive/queue/scheduler"; done
}

name() { echo "${1%/queue/*}" | sed 's|.*/||'; }

check() {
    files=$(schedulers)
    [ -n "$files" ] || absent "no drive with a scheduler below $data"
    for file in $files; do
        found=$(present "$file")
        [ "$found" = none ] || off "$found on $(name "$file"), wanted none"
    done
    ok "none, wanted none"
}

apply() {
    for file in $(schedulers); do put none "$file"; done
}

knob_main "$@"
