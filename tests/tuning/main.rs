//! The knobs of `tuning/`, on a folder that stands for a machine: what they change is put back exactly; and what
//! `corelane check` says of this machine.

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use corelane::tuning::knob::{self, Action, KNOBS, NOTHING_CHANGED};
use machine::{DISK, Machine};

fn project(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_file_is_a_knob_whose_header_says_all_of_it() {
    let mut files: Vec<String> = fs::read_dir(project("tuning"))
        .expect("the folder of the knobs")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name != "knob.sh")
        .collect();
    let mut names: Vec<String> = KNOBS.iter().map(|knob| format!("{}.sh", knob.name)).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names, "src/tuning/knob.rs lists every file of tuning/");
    for knob in KNOBS {
        let header =
            knob.header().unwrap_or_else(|| panic!("{}: a line of its header isn't read", knob.name));
        assert_eq!(header.knob, knob.name);
        for text in [&header.what, &header.why, &header.risk, &header.effect, &header.lasts] {
            assert!(!text.is_empty(), "{}: {header:?}", knob.name);
        }
        let lasts = ["until the next boot", "until reverted", NOTHING_CHANGED];
        assert!(lasts.contains(&header.lasts.as_str()), "{}: {}", knob.name, header.lasts);
        let report = header.effect.split_whitespace().find(|word| word.starts_with("perf/reports/"));
        match report {
            Some(report) => assert!(project(report).is_file(), "{}: {report} isn't there", knob.name),
            None => assert_eq!(header.effect, "none measured on the reference machine", "{}", knob.name),
        }
    }
}

#[test]
fn every_file_is_sound_shell() {
    for entry in fs::read_dir(project("tuning")).expect("the folder of the knobs") {
        let path = entry.expect("an entry").path();
        let output = Command::new("/bin/sh").arg("-n").arg(&path).output().expect("/bin/sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn files_run_alone_as_they_do_from_the_binary() {
    let machine = Machine::new();
    let mut alone = Command::new("/bin/sh");
    alone.arg(project("tuning/swappiness.sh")).arg("check").env("CORELANE_ROOT", machine.root());
    let output = alone.output().expect("/bin/sh");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!((1, said), machine.run("swappiness", Action::Check));
}

/// What each knob changes, by path.
fn changes() -> BTreeMap<&'static str, Vec<(String, &'static str)>> {
    let disk = |name: &str| format!("{DISK}/queue/{name}");
    let unit = |name: &str| format!("etc/systemd/system/corelane.service.d/{name}.conf");
    let folder = || ("etc/systemd/system/corelane.service.d/".to_string(), "");
    let called = |what| ("systemctl.called".to_string(), what);
    let governor = |core: u8| format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
    let tcp = |name: &str| format!("proc/sys/net/ipv4/{name}");
    BTreeMap::from([
        (
            "memlock",
            vec![folder(), (unit("memlock"), "[Service]\nLimitMEMLOCK=8388608"), called("daemon-reload")],
        ),
        (
            "open-files",
            vec![folder(), (unit("open-files"), "[Service]\nLimitNOFILE=1048576"), called("daemon-reload")],
        ),
        (
            "clock-source",
            vec![("sys/devices/system/clocksource/clocksource0/current_clocksource".into(), "tsc")],
        ),
        ("cores", vec![(governor(1), "performance"), (governor(2), "performance")]),
        (
            "interrupts",
            vec![
                ("proc/irq/40/smp_affinity_list".into(), "0,3"),
                ("proc/irq/50/smp_affinity_list".into(), "0,3"),
            ],
        ),
        ("congestion", vec![(tcp("tcp_congestion_control"), "cubic")]),
        (
            "socket-buffers",
            vec![(tcp("tcp_rmem"), "4096\t131072\t4194304"), ("proc/sys/net/core/somaxconn".into(), "1024")],
        ),
        ("scheduler", vec![(disk("scheduler"), "none")]),
        ("read-ahead", vec![(disk("read_ahead_kb"), "128")]),
        ("write-cache", vec![]),
        (
            "mount-options",
            vec![(
                "proc/self/mountinfo".into(),
                "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                 2 1 254:1 / /data\\040disk rw,nosuid,noatime shared:1 - ext4 /dev/vda1 rw",
            )],
        ),
        (
            "trim",
            vec![
                ("etc/systemd/system/timers.target.wants/fstrim.timer".into(), ""),
                called("enable --now fstrim.timer"),
            ],
        ),
        (
            "write-back",
            vec![
                ("proc/sys/vm/dirty_background_ratio".into(), "5"),
                ("proc/sys/vm/dirty_ratio".into(), "10"),
            ],
        ),
        ("huge-pages", vec![("sys/kernel/mm/transparent_hugepage/enabled".into(), "madvise")]),
        ("swappiness", vec![("proc/sys/vm/swappiness".into(), "1")]),
    ])
}

#[test]
fn what_is_applied_is_put_back_exactly() {
    let changes = changes();
    for knob in KNOBS {
        let name = knob.name;
        let changed = &changes[name];
        let machine = Machine::new();
        if name == "trim" {
            // While the filesystem itself discards, fstrim isn't missed.
            let (code, said) = machine.run(name, Action::Check);
            assert_eq!(code, 0, "{said}");
            machine.mount_without_discard();
        }
        let before = machine.files();

        let (code, said) = machine.run(name, Action::Check);
        assert_eq!(code, 1, "{name}: {said}");
        assert!(
            said.starts_with("off: ") && said.contains("wanted") && said.lines().count() == 1,
            "{name}: {said}"
        );
        let (code, said) = machine.run_dry(name);
        assert_eq!(code, 0, "{name}: {said}");
        assert_eq!(machine.files(), before, "{name}: checks and dry runs change nothing");
        assert!(!machine.has_state(), "{name}: and keep nothing");

        for _ in 0..2 {
            let (code, said) = machine.run(name, Action::Apply);
            assert_eq!(code, 0, "{name}: {said}");
            let mut expected = before.clone();
            for (path, value) in changed {
                expected.insert(path.clone(), value.to_string());
            }
            let mut found = machine.files();
            // Limits of a running process stay, so a second apply of them asks again.
            if let Some(called) = found.get_mut("systemctl.called") {
                called.truncate(called.find('\n').unwrap_or(called.len()));
            }
            assert_eq!(found, expected, "{name}: {said}");
        }
        let (code, said) = machine.run(name, Action::Check);
        let stays_off = ["memlock", "open-files", "write-cache"].contains(&name);
        assert_eq!(code, i32::from(stays_off), "{name}: {said}");

        let (code, said) = machine.run(name, Action::Revert);
        assert_eq!(code, 0, "{name}: {said}");
        let mut after = machine.files();
        after.remove("systemctl.called");
        assert_eq!(after, before, "{name}: {said}");
        assert!(!machine.has_state(), "{name}");
        assert_eq!(machine.run(name, Action::Revert), (0, "nothing to put back\n".to_string()), "{name}");
    }
}

#[test]
fn files_of_others_are_put_back_and_their_folders_stay() {
    let machine = Machine::new();
    let file = "etc/systemd/system/corelane.service.d/open-files.conf";
    let other = "etc/systemd/system/corelane.service.d/other.conf";
    machine.set(file, "[Service]\nLimitNOFILE=5");
    let before = machine.files();
    machine.run("open-files", Action::Apply);
    assert!(machine.files()[file].contains("1048576"));
    machine.run("open-files", Action::Revert);
    assert_eq!(machine.files()[file], before[file]);

    machine.run("memlock", Action::Apply);
    machine.set(other, "of somebody");
    machine.run("memlock", Action::Revert);
    assert_eq!(machine.files()[other], "of somebody");
}

#[test]
fn without_systemd_limits_go_to_logins() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.root().join("run")).expect("it was made");
    let before = machine.files();
    machine.run("memlock", Action::Apply);
    assert_eq!(machine.files()["etc/security/limits.d/corelane-memlock.conf"], "* - memlock 8192");
    machine.run("memlock", Action::Revert);
    assert_eq!(machine.files(), before, "the two folders that were made are gone, too");
    assert_eq!(machine.run("trim", Action::Check).0, 2);
}

#[test]
fn the_first_value_is_kept_whatever_comes_between() {
    let machine = Machine::new();
    let file = "proc/sys/net/ipv4/tcp_congestion_control";
    machine.run("congestion", Action::Apply);
    machine.set(file, "htcp");
    machine.run("congestion", Action::Apply);
    machine.run("congestion", Action::Revert);
    assert_eq!(machine.files()[file], "bbr");
}

#[test]
fn a_boot_forgets_values_of_the_kernel_and_no_files() {
    let machine = Machine::new();
    let file = "proc/sys/net/ipv4/tcp_congestion_control";
    let unit = "etc/systemd/system/corelane.service.d/memlock.conf";
    for name in ["congestion", "memlock"] {
        machine.run(name, Action::Apply);
    }
    machine.set("proc/sys/kernel/random/boot_id", "second");
    machine.set(file, "vegas");
    let (_, said) = machine.run("congestion", Action::Revert);
    assert!(said.contains("started anew"), "{said}");
    assert_eq!(machine.files()[file], "vegas", "this boot has its own value");
    machine.run("memlock", Action::Revert);
    assert!(!machine.files().contains_key(unit));

    machine.run("congestion", Action::Apply);
    machine.set("proc/sys/kernel/random/boot_id", "third");
    machine.set(file, "westwood");
    machine.run("congestion", Action::Apply);
    assert_eq!(machine.files()[file], "cubic");
    machine.run("congestion", Action::Revert);
    assert_eq!(machine.files()[file], "westwood", "not that of the second boot");

    machine.mount_without_discard();
    machine.run("trim", Action::Apply);
    machine.set("proc/sys/kernel/random/boot_id", "fourth");
    machine.run("trim", Action::Revert);
    assert!(!machine.files().contains_key("etc/systemd/system/timers.target.wants/fstrim.timer"));
}

#[test]
fn a_volume_is_followed_to_its_drives() {
    let machine = Machine::new();
    machine.move_data_to_a_volume();
    let (code, said) = machine.run("scheduler", Action::Apply);
    assert_eq!(code, 0, "{said}");
    assert_eq!(machine.files()[&format!("{DISK}/queue/scheduler")], "none");
    let (code, said) = machine.run("read-ahead", Action::Apply);
    assert_eq!(code, 0, "{said}");
    for device in [DISK, machine::VOLUME] {
        assert_eq!(machine.files()[&format!("{device}/queue/read_ahead_kb")], "128", "{said}");
    }
}

#[test]
fn cores_without_shards_are_needed_to_move_interrupts() {
    let machine = Machine::new();
    for cores in [vec![], vec![0, 1, 2, 3]] {
        let (code, said) = machine.on_cores(&cores).run("interrupts", Action::Check);
        assert_eq!(code, 0, "{said}");
    }
}

#[test]
fn a_machine_without_anything_has_no_knobs() {
    let machine = Machine::new();
    for folder in ["proc", "sys", "run", "etc"] {
        fs::remove_dir_all(machine.root().join(folder)).expect("it was made");
    }
    machine.set("proc/self/mountinfo", "1 0 0:5 / / rw - tmpfs none rw");
    for knob in KNOBS {
        let (code, said) = machine.run(knob.name, Action::Check);
        assert_eq!(code, 2, "{}: {said}", knob.name);
        assert!(said.starts_with("absent: "), "{}: {said}", knob.name);
        assert_eq!(machine.run(knob.name, Action::Apply), (2, said), "{}", knob.name);
    }
}

#[test]
fn every_knob_has_an_answer_about_this_machine() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = knob::Place { log_dirs: vec![dir.path().to_path_buf()], cores: vec![0] };
    for knob in KNOBS {
        let (_, text) = knob.check(&place).unwrap_or_else(|error| panic!("{error}"));
        assert!(!text.is_empty(), "{}", knob.name);
    }
}

fn corelane(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_corelane")).args(arguments).output().expect("it was built");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_report_for_programs_has_every_write_in_its_histogram() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().to_str().expect("text");
    let (code, text) = corelane(&["check", "--json", "--data", data]);
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &report["is_fit"]), (Some(0), &serde_json::Value::Bool(true)), "{text}");
    let flushes = report["flushes"].as_array().expect("a list");
    assert_eq!(flushes.len(), 2);
    for flush in flushes {
        let counts = flush["histogram"].as_array().expect("a list").iter();
        let sum: u64 = counts.map(|bucket| bucket["count"].as_u64().expect("a number")).sum();
        assert!(sum > 0);
        assert_eq!(Some(sum), flush["count"].as_u64());
        let of = |name: &str| flush[name].as_u64().expect("a number");
        assert!(of("p50_us") <= of("p99_us") && of("p99_us") <= of("max_us"));
        let last = &flush["histogram"].as_array().expect("a list").last().expect("a bucket")["below_us"];
        assert!(of("max_us") < last.as_u64().expect("a number"));
    }
    let names: Vec<&str> =
        report["lines"].as_array().expect("a list").iter().filter_map(|line| line["name"].as_str()).collect();
    for knob in KNOBS {
        assert!(names.contains(&knob.name), "{names:?}");
    }
    for line in report["lines"].as_array().expect("a list") {
        let is_fine = ["ok", "absent"].contains(&line["verdict"].as_str().expect("text"));
        assert_eq!(line["fix"].as_str() == Some(""), is_fine, "{line}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 0, "nothing is left behind");
}

#[test]
fn descriptors_are_those_that_a_start_takes() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = |limit: &str| {
        let command = format!("{limit}; exec {} check --json --data \"$0\"", env!("CARGO_BIN_EXE_corelane"));
        let output = Command::new("sh").args(["-c", &command]).arg(dir.path()).output().expect("a shell");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let lines = report["lines"].as_array().expect("a list");
        let line = lines.iter().find(|line| line["name"] == "descriptors").expect("it is looked at");
        (line["verdict"].as_str().expect("text").to_owned(), line["found"].clone())
    };
    assert_eq!(said("ulimit -Sn 100").0, "ok");
    let (verdict, found) = said("ulimit -n 100");
    assert_eq!((verdict.as_str(), found.as_str()), ("missing", Some("100")));
}

#[test]
fn a_log_directory_that_cant_be_written_is_essential() {
    let (code, text) = corelane(&["check", "--data", "/proc/corelane"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("MISSING") && text.contains("/proc"), "{text}");
}

#[test]
fn commands_end_with_what_they_found() {
    let machine = Machine::new();
    let tune = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command.arg("tune").args(arguments).env("CORELANE_ROOT", machine.root());
        let output = command.output().expect("it was built");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = tune(&["list"]);
    assert_eq!(code, Some(0));
    assert!(KNOBS.iter().all(|knob| text.contains(knob.name)), "{text}");
    assert!(tune(&["list", "swappiness"]).1.contains("none measured"));
    assert_eq!(tune(&["check", "swappiness"]).0, Some(1));
    assert_eq!(tune(&["check", "all"]).0, Some(1));
    let (code, text) = tune(&["apply", "swappiness", "--dry-run"]);
    assert_eq!((code, text.as_str()), (Some(0), "swappiness:\n  echo '1' > /proc/sys/vm/swappiness\n"));
    assert_eq!(tune(&["apply", "swappiness"]).0, Some(0));
    assert_eq!(tune(&["check", "swappiness"]).0, Some(0));
    assert_eq!(tune(&["revert", "swappiness"]).0, Some(0));
    fs::remove_file(machine.root().join("proc/sys/vm/swappiness")).expect("it was made");
    assert_eq!(tune(&["check", "swappiness"]).0, Some(2));
    assert_eq!(tune(&["check", "nothing"]).0, Some(1));
}
