#!/bin/sh
# Knob:   mount-options
# What:   The filesystems of the log directories: mounted with noatime and without discard.
# Why:    With atime a read of a segment writes its inode, in between commit groups. With discard the removal of a segment discards its
#         blocks before anything else is done, and the drive does nothing else meanwhile; fstrim does the same once a week at night
#         (knob trim).
# Risk:   A thinly provisioned drive gets no space back until fstrim runs. For good it has to be written to /etc/fstab as well.
# Effect: removing 64 MiB held the drive up for up to 20 ms; the broker removes in pieces of 1 MiB since:
#         perf/reports/2026-11-22-producers-beside/README.md
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

has() { case ",$1," in *,"$2",*) return 0 ;; *) return 1 ;; esac; }

decoded() { printf '%b' "$(echo "$1" | sed 's/\\\([0-7][0-7][0-7]\)/\\0\1/g')"; }

check() {
    found=$(mounts)
    [ -n "$found" ] || absent "no filesystem is known below $data"
    echo "$found" | grep -q ' /dev/' || absent "no filesystem on a drive below $data"
    wrong=$(echo "$found" | while read -r _ place _ _ options more; do
        has "$options" noatime || echo "no noatime on $place"
        ! has "$more" discard || echo "discard on $place"
    done | paste -sd, - | sed 's/,/, /g')
    [ -z "$wrong" ] || off "$wrong; wanted noatime without discard"
    ok "noatime without discard, wanted the same"
}

# remount SOURCE PLACE OPTIONS: all options, since those that aren't named would go.
remount() { run mount -o "remount,$3" "$1" "$(decoded "$2")"; }

without_atime() { echo "$1" | tr , '\n' | grep -v -E '^(noatime|relatime|strictatime)$' | paste -sd, -; }

apply() {
    mounts | while read -r _ place _ source options more; do
        before=strictatime
        for word in noatime relatime; do ! has "$options" "$word" || before=$word; done
        after=noatime
        if has "$more" discard; then
            before=$before,discard
            after=$after,nodiscard
        fi
        [ "$before" != noatime ] || continue
        save notes "$place" echo "$before"
        remount "$source" "$place" "$(without_atime "$options"),$after"
    done
}

revert_notes() {
    for entry in "$saved"/notes/*; do
        place=$(echo "${entry##*/}" | tr , /)
        awk '{ for (at = 7; $at != "-"; at++) {} print $5, $(at + 2), $6 }' "$root/proc/self/mountinfo" |
            while read -r mounted source options; do
                [ "$mounted" != "$place" ] || echo "$source $options"
            done | tail -n 1 | while read -r source options; do
                remount "$source" "$place" "$(without_atime "$options"),$(cat "$entry")"
            done
    done
}

knob_main "$@"
