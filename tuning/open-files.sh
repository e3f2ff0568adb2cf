#!/bin/sh
# Knob:   open-files
# What:   Descriptors of the broker's process: 65536 or more; 1048576 are set.
# Why:    Each connection (max.connections, 10,000) and each open segment takes one. Without any, connections are closed as they come and
#         work on files waits.
# Risk:   Without systemd it goes to every login of this machine.
# Effect: none measured on the reference machine
# Lasts:  until reverted
. "${0%/*}/knob.sh"

files_changed() { systemd_reload; }
check() { check_limit "Max open files" 65536 descriptors; }
apply() { apply_limit "LimitNOFILE=1048576" "nofile 1048576"; }

knob_main "$@"
