#!/bin/sh
# Knob:   clock-source
# What:   The clock of the kernel: one that is read without a system call (tsc, kvm-clock, hyperv_clocksource_tsc_page, arch_sys_counter).
# Why:    A shard reads two clocks each turn. From hpet or acpi_pm a look takes microseconds instead of some 20 ns.
# Risk:   A kernel that went away from tsc by itself had a reason (its log says which): the time may jump or drift.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

folder=$root/sys/devices/system/clocksource/clocksource0
good="tsc kvm-clock hyperv_clocksource_tsc_page arch_sys_counter"

check() {
    [ -e "$folder/current_clocksource" ] || absent "the kernel doesn't say its clock"
    found=$(present "$folder/current_clocksource")
    case " $good " in
    *" $found "*) ok "$found, wanted one that is read without a system call" ;;
    *) off "$found, wanted $(best)" ;;
    esac
}

best() {
    for name in $good; do
        case " $(cat "$folder/available_clocksource") " in
        *" $name "*) echo "$name"; return ;;
        esac
    done
    echo "one of $good, which this machine doesn't have"
}

apply() {
    case $(best) in
    *" "*) fail "this machine has $(cat "$folder/available_clocksource") only" ;;
    *) put "$(best)" "$folder/current_clocksource" ;;
    esac
}

knob_main "$@"
