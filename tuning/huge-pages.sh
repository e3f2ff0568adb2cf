#!/bin/sh
# Knob:   huge-pages
# What:   Transparent huge pages: madvise.
# Why:    With always, the first byte of each 2 MiB takes 2 MiB: memory of the broker beyond its pools, and pauses while the kernel
#         makes room.
# Risk:   Programs that live on large pages without asking for them (some databases, some JVM settings) are slower.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

file=$root/sys/kernel/mm/transparent_hugepage/enabled

check() { check_one_of "$file" "this kernel has no transparent huge pages" madvise never; }

apply() { put madvise "$file"; }

knob_main "$@"
