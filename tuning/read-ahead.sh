#!/bin/sh
# Knob:   read-ahead
# What:   read_ahead_kb of the log directories' devices: 128 at most.
# Why:    What another process reads through the page cache of the same drive takes read-ahead with it, and this goes in front of commit
#         groups. The broker's own reads take none.
# Risk:   Others that read large files of this drive in order are slower.
# Effect: the p99 of producers beside a reader of old data was 86 and 101 ms with a read-ahead of 8 MiB, and 5.7 to 21 ms once the
#         broker's own reads took none; for readers that aren't the broker it wasn't measured:
#         perf/reports/2026-11-22-producers-beside/README.md
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

wanted_kb=128

files() {
    for device in $(devices; drives); do echo "$device/queue/read_ahead_kb"; done | sort -u
}

name() { echo "${1%/queue/*}" | sed 's|.*/||'; }

check() {
    [ -n "$(files)" ] || absent "no block device below $data"
    most=0
    for file in $(files); do
        found=$(present "$file")
        [ "$found" -le "$wanted_kb" ] || off "$found KiB on $(name "$file"), wanted $wanted_kb at most"
        [ "$found" -le "$most" ] || most=$found
    done
    ok "$most KiB, wanted $wanted_kb at most"
}

apply() {
    for file in $(files); do
        [ "$(present "$file")" -le "$wanted_kb" ] || put "$wanted_kb" "$file"
    done
}

knob_main "$@"
