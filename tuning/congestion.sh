#!/bin/sh
# Knob:   congestion
# What:   net.ipv4.tcp_congestion_control: cubic or reno.
# Why:    BBR paces each connection by timers of the kernel, and this costs CPU on loopback and in a local network, where there is
#         hardly anything to gain by it.
# Risk:   Consumers behind a long and lossy path are slower with cubic. Open connections and listeners keep what they have: restart
#         the broker.
# Effect: one stream over loopback, both ends: 2.6 times less CPU with cubic than with bbr; requests that wait for their answers: none:
#         perf/reports/2026-11-22-congestion-control/README.md
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

file=$root/proc/sys/net/ipv4/tcp_congestion_control

check() { check_one_of "$file" "no TCP settings here" cubic reno; }

apply() { put cubic "$file"; }

knob_main "$@"
