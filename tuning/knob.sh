# What every knob has: where things are, and how a value is read, saved, written and put back. No knob itself.
#
# CORELANE_DATA   log directories with commas      CORELANE_STATE    folder of what was there before
# CORELANE_CORES  cores that run shards, likewise  CORELANE_DRY_RUN  not empty: say what would be done
# CORELANE_ROOT   goes before /proc, /sys, /etc and /run; with it only commands of its own bin/ are run
#
# A knob sets `check` (ends by `ok`, `off` or `absent`) and `apply` (changes things by `put`, `put_file` and `run` only).
#
# The state folder has a folder per knob:
#   boot       which boot the values below kernel/ and notes/ belong to: the next one starts with its own
#   kernel/    what files of /proc and /sys had; the name is the path with commas for slashes
#   notes/     what `revert_notes` of the knob needs; lasting/ likewise for `revert_lasting`, and outlives a boot
#   files/     what files of /etc had, or NAME.absent: these outlive a boot
#   folders    folders of /etc that were made, outermost first

set -eu
root=${CORELANE_ROOT:-}
[ -z "$root" ] || root=$(cd -P -- "$root" && pwd)
data=${CORELANE_DATA:-$PWD/corelane-data}
cores=${CORELANE_CORES:-}
dry=${CORELANE_DRY_RUN:-}
knob=${0##*/}
knob=${knob%.sh}
saved=${CORELANE_STATE:-$root/var/lib/corelane/tuning}/$knob

# Not the shell's own, which may read \040 in the name of a mount as a space.
echo() { printf '%s\n' "$*"; }

ok() { echo "ok: $*"; exit 0; }
off() { echo "off: $*"; exit 1; }
absent() { echo "absent: $*"; exit 2; }
fail() { echo "$knob: $*" >&2; exit 1; }

# The value of a file: the one in brackets where it lists several.
present() { sed 's/.*\[\([^]]*\)\].*/\1/' "$1"; }

boot_id() { cat "$root/proc/sys/kernel/random/boot_id"; }

# Values that an earlier boot had before a knob was applied: this boot has its own again.
drop_stale() {
    if [ -e "$saved/boot" ] && [ "$(cat "$saved/boot")" != "$(boot_id)" ]; then
        rm -rf "$saved/boot" "$saved/kernel" "$saved/notes"
    fi
}

# save FOLDER PATH COMMAND...: keeps what COMMAND prints, unless an earlier apply kept it already. The entry is
# whole before anything is changed.
save() {
    [ -z "$dry" ] || return 0
    drop_stale
    mkdir -p "$saved/$1"
    [ "$1" != kernel ] && [ "$1" != notes ] || boot_id >"$saved/boot"
    entry=$saved/$1/$(echo "${2#"$root"}" | tr / ,)
    shift 2
    [ -e "$entry" ] || [ -e "$entry.absent" ] || { "$@" >"$saved/new" && mv "$saved/new" "$entry"; }
}

write() {
    if [ -n "$dry" ]; then
        echo "echo '$1' > ${2#"$root"}"
    else
        echo "$2: $(present "$2") -> $1"
        { printf '%s\n' "$1" >"$2"; } 2>/dev/null || fail "$2 doesn't take '$1'"
    fi
}

# put VALUE FILE, of /proc or /sys.
put() {
    [ "$(present "$2")" != "$1" ] || return 0
    save kernel "$2" present "$2"
    write "$1" "$2"
}

# put_file FILE TEXT, of /etc.
put_file() {
    if [ -n "$dry" ]; then
        echo "mkdir -p ${1%/*}; echo '$2' > ${1#"$root"}"
        return 0
    fi
    if [ -e "$1" ]; then
        save files "$1" cat "$1"
    else
        mkdir -p "$saved/files"
        entry=$saved/files/$(echo "${1#"$root"}" | tr / ,)
        [ -e "$entry" ] || : >"$entry.absent"
    fi
    make_folder "${1%/*}"
    echo "$1 is written"
    printf '%s\n' "$2" >"$1"
}

make_folder() {
    [ -d "$1" ] && return 0
    make_folder "${1%/*}"
    echo "${1#"$root"}" >>"$saved/folders"
    mkdir "$1"
}

run_on_file() {
    echo "$*"
    [ -n "$dry" ] || "$@"
}

# A command of the machine. Under another root only one that this root has: nothing of the machine's own is touched.
run() {
    echo "$*"
    [ -z "$dry" ] || return 0
    if [ -z "$root" ]; then
        "$@"
    elif [ -x "$root/bin/$1" ]; then
        command=$root/bin/$1
        shift
        "$command" "$@"
    fi
}

# Of a knob that keeps notes: put back what they say.
revert_notes() { :; }
revert_lasting() { :; }
# Of a knob that writes files: makes what reads them read them again.
files_changed() { :; }

revert() {
    [ -d "$saved" ] || { echo "nothing to put back"; return 0; }
    if [ -e "$saved/boot" ] && [ "$(cat "$saved/boot")" != "$(boot_id)" ]; then
        echo "the machine was started anew since: its kernel has its own values again"
        [ -n "$dry" ] || drop_stale
    else
        for entry in "$saved"/kernel/*; do
            [ -e "$entry" ] || continue
            path=$root$(echo "${entry##*/}" | tr , /)
            if [ ! -e "$path" ]; then
                echo "$path is gone"
            elif [ "$(present "$path")" != "$(cat "$entry")" ]; then
                write "$(cat "$entry")" "$path"
            fi
        done
        [ ! -d "$saved/notes" ] || revert_notes
    fi
    [ ! -d "$saved/lasting" ] || revert_lasting
    if [ -d "$saved/files" ]; then
        for entry in "$saved"/files/*; do
            [ -e "$entry" ] || continue
            path=$root$(echo "${entry##*/}" | tr , /)
            case $entry in
            *.absent) run_on_file rm -f "${path%.absent}" ;;
            *) run_on_file cp "$entry" "$path" ;;
            esac
        done
        [ ! -e "$saved/folders" ] || sort -r "$saved/folders" | while read -r folder; do
            [ -n "$dry" ] || rmdir "$root$folder" 2>/dev/null || echo "$folder has files of others and stays"
        done
        files_changed
    fi
    [ -n "$dry" ] || rm -rf "$saved"
}

# check_one_of FILE ABSENT WANTED OTHER: a setting of one word, of which another is as good.
check_one_of() {
    [ -e "$1" ] || absent "$2"
    found=$(present "$1")
    case $found in
    "$3" | "$4") ok "$found, wanted $3 or $4" ;;
    *) off "$found, wanted $3" ;;
    esac
}

# ---- The disks of the log directories --------------------------------------------------------------------------

# A line per log directory: device number, mount point, filesystem, source, options, options of the filesystem.
# Mount points are as in mountinfo: \040 for a space.
mounts() {
    echo "$data" | tr , '\n' | sed 's/\\/\\134/g; s/ /\\040/g' | while read -r dir; do
        dir=$dir awk '{
            mount = $5
            if (mount == "/" || ENVIRON["dir"] == mount || index(ENVIRON["dir"], mount "/") == 1)
                if (length(mount) >= length(best)) {
                    best = mount
                    for (at = 7; $at != "-"; at++) {}
                    line = $3 " " mount " " $(at + 1) " " $(at + 2) " " $6 " " $(at + 3)
                }
        } END { if (line != "") print line }' "$root/proc/self/mountinfo"
    done | sort -u
}

# The devices with the filesystems of the log directories, as folders of /sys that have a queue/.
devices() {
    mounts | while read -r number _ _ source _; do
        device=$root/sys/dev/block/$number
        [ -e "$device" ] || device=$root/sys/class/block/${source##*/}
        [ -e "$device" ] && whole "$device"
    done | sort -u
}

# The drives below these: of a volume manager or a RAID those that it consists of.
drives() {
    devices | while read -r device; do drives_below "$device"; done | sort -u
}

drives_below() (
    found=
    for part in "$1"/slaves/*; do
        [ -e "$part" ] || continue
        found=yes
        drives_below "$(whole "$part")"
    done
    [ -n "$found" ] || echo "$1"
)

# The device that a partition is of; itself when it is none.
whole() (
    cd -P -- "$1"
    [ ! -e partition ] || cd ..
    [ ! -d queue ] || pwd
)

# ---- Limits of the broker's process ----------------------------------------------------------------------------

# limit NAME: the soft limit of this process, as /proc/self/limits has it.
limit() { sed -n "s/^$1  *\([^ ]*\).*/\1/p" "$root/proc/self/limits"; }

limit_file() {
    if [ -d "$root/run/systemd/system" ]; then
        echo "$root/etc/systemd/system/corelane.service.d/$knob.conf"
    else
        echo "$root/etc/security/limits.d/corelane-$knob.conf"
    fi
}

# check_limit NAME WANTED UNIT: the limit is inherited, so that of this process is the one a broker gets that is
# started here.
check_limit() {
    [ -e "$root/proc/self/limits" ] || absent "no limits here"
    found=$(limit "$1")
    [ "$found" != unlimited ] || ok "unlimited, wanted $2 $3 or more"
    [ "$found" -lt "$2" ] || ok "$found $3, wanted $2 or more"
    file=$(limit_file)
    [ -e "$file" ] || off "$found $3, wanted $2 or more"
    off "$found $3 here, wanted $2 or more; ${file#"$root"} gives more to what is started anew"
}

# apply_limit SYSTEMD PAM: the settings with values, for a service and for logins.
apply_limit() {
    file=$(limit_file)
    case $file in
    */systemd/*) put_file "$file" "[Service]
$1" ;;
    *) put_file "$file" "* - $2" ;;
    esac
    files_changed
}

systemd_reload() {
    [ ! -d "$root/run/systemd/system" ] || run systemctl daemon-reload
}

# ---- What a knob ends with -------------------------------------------------------------------------------------

knob_main() {
    case ${1:-} in
    check) check ;;
    apply | revert)
        [ -n "$root$dry" ] || [ "$(id -u)" = 0 ] || fail "only root can do this"
        if [ "$1" = revert ]; then
            revert
            return
        fi
        code=0
        found=$(check) || code=$?
        case $code in
        0 | 2) echo "$found" ;;
        *)
            apply
            [ -z "$dry" ] || return 0
            (check) || :
            ;;
        esac
        [ "$code" != 2 ] || exit 2
        ;;
    *) fail "check, apply or revert?" ;;
    esac
}
