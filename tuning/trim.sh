#!/bin/sh
# Knob:   trim
# What:   fstrim.timer of systemd: enabled, where a drive takes discards and its filesystem isn't mounted with discard.
# Why:    A drive that isn't told which blocks are free gets slower and wears faster. Once a week is often enough.
# Risk:   The drive is busy for seconds to minutes once a week; for all filesystems of this machine.
# Effect: none measured on the reference machine
# Lasts:  until reverted
. "${0%/*}/knob.sh"

enabled() { [ -e "$root/etc/systemd/system/timers.target.wants/fstrim.timer" ]; }

check() {
    takes=
    for drive in $(drives); do
        [ "$(cat "$drive/queue/discard_max_bytes" 2>/dev/null || echo 0)" = 0 ] || takes=yes
    done
    [ -n "$takes" ] || absent "no drive below $data takes discards"
    [ -d "$root/run/systemd/system" ] || absent "systemd isn't running: fstrim has to be run by something else"
    ! enabled || ok "fstrim.timer is enabled, wanted enabled"
    mounts | while read -r _ _ _ _ _ more; do
        case ",$more," in *,discard,*) ;; *) echo plain ;; esac
    done | grep -q plain || ok "fstrim.timer isn't enabled, and not needed while mounted with discard"
    off "fstrim.timer isn't enabled, wanted enabled"
}

apply() {
    save lasting timer echo disabled
    run systemctl enable --now fstrim.timer
}

revert_lasting() { run systemctl disable --now fstrim.timer; }

knob_main "$@"
