#!/bin/sh
# Knob:   socket-buffers
# What:   The largest buffers that TCP may take for a connection (net.ipv4.tcp_rmem and tcp_wmem, third number): 4 MiB or more; the queue
#         of connections not yet accepted (net.core.somaxconn): 1024 or more, as much as the broker asks for.
# Why:    A fetch answer that doesn't fit the socket's buffer takes more turns, and a connection over a long path is as fast as its buffer
#         is large. Clients that come all at once after a restart wait a second or more when the queue is full.
# Risk:   Memory of the kernel, up to these bytes for each connection that is behind; bounded by net.ipv4.tcp_mem.
# Effect: none measured on the reference machine
# Lasts:  until the next boot
. "${0%/*}/knob.sh"

bytes_min=4194304
backlog_min=1024
somaxconn=$root/proc/sys/net/core/somaxconn

buffers() {
    for name in tcp_rmem tcp_wmem; do
        [ ! -e "$root/proc/sys/net/ipv4/$name" ] || echo "$root/proc/sys/net/ipv4/$name"
    done
}

largest() { awk '{ print $3 }' "$1"; }

check() {
    [ -n "$(buffers)" ] || absent "no TCP settings here"
    for file in $(buffers); do
        [ "$(largest "$file")" -ge "$bytes_min" ] || off "${file##*/} up to $(largest "$file"), wanted $bytes_min or more"
    done
    [ "$(present "$somaxconn")" -ge "$backlog_min" ] || off "somaxconn $(present "$somaxconn"), wanted $backlog_min or more"
    ok "up to $(for file in $(buffers); do largest "$file"; done | paste -sd, - | sed 's/,/ and /'), wanted $bytes_min or more"
}

apply() {
    for file in $(buffers); do
        [ "$(largest "$file")" -ge "$bytes_min" ] || put "$(awk -v most="$bytes_min" '{ print $1 "\t" $2 "\t" most }' "$file")" "$file"
    done
    [ "$(present "$somaxconn")" -ge "$backlog_min" ] || put "$backlog_min" "$somaxconn"
}

knob_main "$@"
