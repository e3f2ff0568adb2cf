#!/bin/sh
# Knob:   write-cache
# What:   Whether the log directories' drives have a volatile write cache, and can write past it (FUA).
# Why:    A commit group is one write that goes past the cache where the drive can do that. Where it can't, a flush of the whole cache follows
#         each group. A drive without a volatile cache (power-loss protection) needs neither.
# Risk:   Nothing is changed, whatever is asked: telling the kernel that a cache isn't there makes it leave flushes out, and acknowledged
#         records are lost with the power.
# Effect: none measured on the reference machine
# Lasts:  nothing is changed
. "${0%/*}/knob.sh"

check() {
    found=$(drives)
    [ -n "$found" ] || absent "no drive below $data"
    for drive in $found; do
        case "$(cat "$drive/queue/write_cache") $(cat "$drive/queue/fua")" in
        "write back 0") off "${drive##*/} has a volatile cache and no FUA, wanted FUA or a cache that outlives a power cut" ;;
        esac
    done
    ok "no flush of a cache is needed, wanted the same"
}

apply() { echo "nothing to apply: it is the drive's nature; one with power-loss protection is what helps"; }

knob_main "$@"
