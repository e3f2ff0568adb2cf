#!/bin/sh
# Knob:   interrupts
# What:   Interrupts of the network and of the log directories' drives: on the cores that run no shard, where there are such.
# Why:    An interrupt and the network work after it take the core from the shard in the middle of a turn. With every core running a shard
#         the kernel's spread over all of them is as good as any.
# Risk:   The other cores must have time for it. irqbalance moves interrupts again unless it is stopped. Queues that the kernel manages
#         itself (NVMe) can't be moved and stay.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

# Cores of a list as the kernel writes it (0-2,5), one per line.
expand() { echo "$1" | tr , '\n' | awk -F- 'NF { for (core = $1; core <= $NF; core++) print core }'; }

online() { expand "$(cat "$root/sys/devices/system/cpu/online")"; }

others() {
    online | while read -r core; do
        case ",$cores," in
        *,"$core",*) ;;
        *) echo "$core" ;;
        esac
    done | paste -sd, -
}

# Numbers of the interrupts of the devices that a disk or a network interface belongs to.
interrupts() {
    { drives; for link in "$root"/sys/class/net/*; do [ ! -e "$link/device" ] || echo "$link"; done; } | while read -r device; do
        (
            cd -P -- "$device/device" 2>/dev/null || exit 0
            while [ "$PWD" != / ] && [ "$PWD" != "$root" ] && [ ! -d msi_irqs ]; do cd ..; done
            [ ! -d msi_irqs ] || ls msi_irqs
        )
    done | sort -un
}

# Whether some core of the list $1 runs a shard.
on_shards() {
    for core in $(expand "$1"); do
        case ",$cores," in
        *,"$core",*) return 0 ;;
        esac
    done
    return 1
}

# Files of the interrupts that may come to a shard's core.
misplaced() {
    for number in $(interrupts); do
        file=$root/proc/irq/$number/smp_affinity_list
        [ -e "$file" ] || continue
        ! on_shards "$(cat "$file")" || echo "$file"
    done
}

check() {
    [ -d "$root/proc/irq" ] || absent "no interrupts to place here"
    [ -n "$cores" ] || ok "shards aren't pinned, and the kernel places interrupts"
    free=$(others)
    [ -n "$free" ] || ok "every core runs a shard, and the kernel places interrupts"
    [ -n "$(interrupts)" ] || absent "neither disk nor network has interrupts of its own"
    found=$(misplaced | sed 's|.*/irq/\([0-9]*\)/.*|\1|' | paste -sd, -)
    [ -z "$found" ] || off "interrupts $found come to cores with shards ($cores), wanted on $free"
    ok "on other cores than shards, wanted on $free"
}

apply() {
    failed=
    for file in $(misplaced); do (put "$(others)" "$file") || failed=yes; done
    [ -z "$failed" ] || fail "the kernel manages these interrupts itself"
}

knob_main "$@"
