#!/bin/sh
# Knob:   write-back
# What:   vm.dirty_background_ratio 5 and vm.dirty_ratio 10 at most: how much of the memory may be written but not yet on disk.
# Why:    The broker writes past the page cache. Others on the same drive don't, and the kernel writes a large heap of theirs at once, in
#         front of commit groups.
# Risk:   Programs that write a lot in short bursts wait for the disk earlier. Limits that somebody set in bytes are left alone.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

folder=$root/proc/sys/vm

check() {
    [ -e "$folder/dirty_ratio" ] || absent "no such setting here"
    if [ "$(cat "$folder/dirty_bytes")" != 0 ] || [ "$(cat "$folder/dirty_background_bytes")" != 0 ]; then
        ok "set in bytes, $(cat "$folder/dirty_background_bytes") and $(cat "$folder/dirty_bytes"): left alone"
    fi
    found="$(cat "$folder/dirty_background_ratio") % and $(cat "$folder/dirty_ratio") %, wanted 5 % and 10 % at most"
    [ "$(cat "$folder/dirty_background_ratio")" -le 5 ] && [ "$(cat "$folder/dirty_ratio")" -le 10 ] || off "$found"
    ok "$found"
}

apply() {
    [ "$(cat "$folder/dirty_background_ratio")" -le 5 ] || put 5 "$folder/dirty_background_ratio"
    [ "$(cat "$folder/dirty_ratio")" -le 10 ] || put 10 "$folder/dirty_ratio"
}

knob_main "$@"
