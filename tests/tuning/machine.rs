//! Machine: a folder with what knobs look at and change. The log directory is on a mount with a space in its name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use corelane::tuning::knob::{self, Action, Place};
use tempfile::TempDir;

pub const DISK: &str = "sys/devices/pci0/0000:00:02.0/virtio1/block/vda";
pub const VOLUME: &str = "sys/devices/virtual/block/dm-0";

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n\
                      Max locked memory         65536                65536                bytes";

const MOUNTS: &str = "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                      2 1 254:1 / /data\\040disk rw,nosuid,relatime shared:1 - ext4 /dev/vda1 rw,discard";

/// Files as they are on a machine where nothing is as wanted.
const FILES: &[(&str, &str)] = &[
    ("proc/self/limits", LIMITS),
    ("proc/self/mountinfo", MOUNTS),
    ("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2"),
    ("proc/irq/40/smp_affinity_list", "0-3"),
    ("proc/irq/41/smp_affinity_list", "0"),
    ("proc/irq/50/smp_affinity_list", "2"),
    ("proc/irq/60/smp_affinity_list", "1"),
    ("proc/sys/kernel/random/boot_id", "first"),
    ("proc/sys/net/core/somaxconn", "128"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "bbr"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t212992"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t8388608"),
    ("proc/sys/vm/dirty_background_bytes", "0"),
    ("proc/sys/vm/dirty_background_ratio", "10"),
    ("proc/sys/vm/dirty_bytes", "0"),
    ("proc/sys/vm/dirty_ratio", "20"),
    ("proc/sys/vm/swappiness", "60"),
    ("sys/devices/pci0/0000:00:02.0/msi_irqs/40", "msix"),
    ("sys/devices/pci0/0000:00:02.0/msi_irqs/41", "msix"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/scheduler", "none [mq-deadline] kyber"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/read_ahead_kb", "8192"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/write_cache", "write back"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/fua", "0"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/discard_max_bytes", "1073741824"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/vda1/partition", "1"),
    ("sys/devices/pci0/0000:00:03.0/msi_irqs/50", "msix"),
    ("sys/devices/pci0/0000:00:03.0/virtio2/net/eth0/mtu", "1500"),
    ("sys/devices/pci0/0000:00:04.0/msi_irqs/60", "msix"),
    ("sys/devices/virtual/block/dm-0/queue/read_ahead_kb", "4096"),
    ("sys/devices/system/cpu/online", "0-3"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"),
    ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "ondemand"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "kvm-clock tsc hpet acpi_pm"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
];

const LINKS: &[(&str, &str)] = &[
    ("sys/dev/block/254:1", "../../devices/pci0/0000:00:02.0/virtio1/block/vda/vda1"),
    ("sys/dev/block/253:0", "../../devices/virtual/block/dm-0"),
    ("sys/devices/virtual/block/dm-0/slaves/vda1", "../../../../pci0/0000:00:02.0/virtio1/block/vda/vda1"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/device", "../.."),
    ("sys/class/net/eth0", "../../devices/pci0/0000:00:03.0/virtio2/net/eth0"),
    ("sys/devices/pci0/0000:00:03.0/virtio2/net/eth0/device", "../.."),
];

/// `mount -o remount,OPTIONS SOURCE PLACE`, as the kernel does it to the second line of the table.
const MOUNT: &str = r#"#!/bin/sh
set -eu
[ "$1 $3 $4" = "-o /dev/vda1 /data disk" ] || { echo "mount $*" >&2; exit 32; }
table=${0%/bin/mount}/proc/self/mountinfo
of_place=$(echo "$2" | tr , '\n' | grep -v -E '^(remount|discard|nodiscard)$' | paste -sd, -)
case ,$2, in *,discard,*) more=rw,discard ;; *,nodiscard,*) more=rw ;; *) more=$(sed -n 's/^2 .* //p' "$table") ;; esac
{ sed 1q "$table"; echo "2 1 254:1 / /data\\\\040disk $of_place shared:1 - ext4 /dev/vda1 $more"; } >"$table.new"
mv "$table.new" "$table"
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh
set -eu
root=${0%/bin/systemctl}
echo "$*" >>"$root/systemctl.called"
timer=$root/etc/systemd/system/timers.target.wants/fstrim.timer
case $* in
"enable --now fstrim.timer") : >"$timer" ;;
"disable --now fstrim.timer") rm "$timer" ;;
esac
"#;

pub struct Machine {
    folder: TempDir,
    cores: Vec<usize>,
}

impl Machine {
    /// Shards on cores 1 and 2 of four.
    pub fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder"), cores: vec![1, 2] };
        for (path, text) in FILES {
            machine.set(path, text);
        }
        for (path, target) in LINKS {
            let path = machine.root().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is writable");
            symlink(target, path).expect("the folder is writable");
        }
        for folder in ["run/systemd/system", "etc/systemd/system/timers.target.wants"] {
            fs::create_dir_all(machine.root().join(folder)).expect("the folder is writable");
        }
        for (name, text) in [("mount", MOUNT), ("systemctl", SYSTEMCTL)] {
            let path = format!("bin/{name}");
            machine.set(&path, text.trim_end());
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(machine.root().join(path), executable).expect("it is ours");
        }
        machine
    }

    pub fn on_cores(&self, cores: &[usize]) -> Self {
        let machine = Self::new();
        Self { cores: cores.to_vec(), ..machine }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    fn state(&self) -> PathBuf {
        self.root().join("var/lib/corelane/tuning")
    }

    pub fn has_state(&self) -> bool {
        self.state().exists() && fs::read_dir(self.state()).expect("a folder").count() > 0
    }

    pub fn set(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is writable");
        fs::write(path, format!("{text}\n")).expect("the folder is writable");
    }

    pub fn mount_without_discard(&self) {
        self.set("proc/self/mountinfo", MOUNTS.strip_suffix(",discard").expect("it is the last"));
    }

    pub fn move_data_to_a_volume(&self) {
        let mounts = MOUNTS.replace("254:1", "253:0").replace("/dev/vda1", "/dev/mapper/data");
        self.set("proc/self/mountinfo", &mounts);
    }

    pub fn run(&self, name: &str, action: Action) -> (i32, String) {
        self.run_so(name, action, false)
    }

    pub fn run_dry(&self, name: &str) -> (i32, String) {
        self.run_so(name, Action::Apply, true)
    }

    /// Exit code, and what it said.
    fn run_so(&self, name: &str, action: Action, is_dry_run: bool) -> (i32, String) {
        let place = Place { log_dirs: vec!["/data disk/corelane".into()], cores: self.cores.clone() };
        let knob = knob::find(name).expect("a knob");
        let mut command = knob.command(action, &place, is_dry_run);
        let output = command.env("CORELANE_ROOT", self.root()).output().expect("/bin/sh");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().expect("no signal"), String::from_utf8(said).expect("text"))
    }

    /// Every file with its value (the chosen one, where it lists several) and every folder, but the knobs' own.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.root().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let entry = entry.expect("an entry");
                let path = entry.path();
                let name = path.strip_prefix(self.root()).expect("below").to_str().expect("text").to_string();
                let kind = entry.file_type().expect("a kind");
                if name == "var" {
                    continue;
                }
                if kind.is_dir() {
                    files.insert(format!("{name}/"), String::new());
                    folders.push(path);
                } else if kind.is_file() {
                    let text = fs::read_to_string(path).expect("text").trim_end_matches('\n').to_string();
                    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
                    let is_list = name.starts_with("sys/");
                    let value = chosen.filter(|_| is_list).map(|(chosen, _)| chosen.to_string());
                    files.insert(name, value.unwrap_or(text));
                }
            }
        }
        files
    }
}
