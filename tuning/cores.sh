#!/bin/sh
# Knob:   cores
# What:   The frequency governor of the cores that run shards: performance.
# Why:    A shard sleeps whenever nothing is to do; a governor that slows its core down then makes every first request after it wait
#         for the core to speed up.
# Risk:   More power and heat.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

governors() {
    for folder in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
        core=${folder%/cpufreq}
        core=${core##*/cpu}
        case ",$cores," in
        ,, | *,"$core",*) [ ! -e "$folder/scaling_governor" ] || echo "$folder/scaling_governor" ;;
        esac
    done
}

check() {
    files=$(governors)
    [ -n "$files" ] || absent "the frequency isn't this machine's to set"
    for file in $files; do
        found=$(present "$file")
        [ "$found" = performance ] || off "$found on $(echo "${file%/cpufreq/*}" | sed 's/.*cpu//'), wanted performance"
    done
    ok "performance, wanted performance"
}

apply() {
    for file in $(governors); do put performance "$file"; done
}

knob_main "$@"
