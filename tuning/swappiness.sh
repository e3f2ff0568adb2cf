#!/bin/sh
# Knob:   swappiness
# What:   vm.swappiness: 10 at most; 1 is set.
# Why:    The page cache of a broker grows until it fills the memory. A kernel that swaps rather than drops pages of it takes pools of the
#         shards, and a shard that touches one waits for the disk.
# Risk:   Idle programs beside the broker stay in memory longer.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

file=$root/proc/sys/vm/swappiness

check() {
    [ -e "$file" ] || absent "no such setting here"
    [ "$(wc -l <"$root/proc/swaps")" -gt 1 ] || ok "$(present "$file"), and there is no swap"
    [ "$(present "$file")" -le 10 ] || off "$(present "$file"), wanted 10 at most"
    ok "$(present "$file"), wanted 10 at most"
}

apply() { put 1 "$file"; }

knob_main "$@"
