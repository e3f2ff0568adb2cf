//! Machine: the faulty disk as a block device with a filesystem on it.
//!
//! Promises: whatever touches the filesystem is another process: a thread of this one that waited for the
//!           disk, which this process serves, could keep the process from ever ending.

use crate::disk::{Disk, FILE_NAME};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Filesystem {
    Ext4,
    Xfs,
}

impl Filesystem {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// How long a filesystem may take to let go of its disk.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(60);

pub struct Machine {
    pub disk: Disk,
    /// Where the filesystem is mounted: the broker's data folder.
    pub data: PathBuf,
    filesystem: Filesystem,
    sector_bytes: u32,
    image: PathBuf,
    device: Option<String>,
    is_mounted: bool,
}

/// Runs a command to its end and returns what it said; a failure is `Err` with it.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{program} {arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the project's path is text")
}

/// Takes down what an interrupted run left in `dir`: its broker, which may still hold the filesystem, mounts
/// and device.
fn tidy_up(dir: &Path) {
    let is_its_broker = |process: &Path| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == text(&dir.join("data")).as_bytes())
    };
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = process.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(id) = id
            && is_its_broker(&process.path())
        {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
    unmount_lazily(&dir.join("data"));
    // While the file is still mounted: after that its name is lost.
    let image = dir.join("fuse").join(FILE_NAME);
    let devices = run("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
    for line in devices.unwrap_or_default().lines() {
        if let Some((device, file)) = line.split_once(' ')
            && file.trim() == text(&image)
        {
            run("losetup", &["--detach", device]).ok();
        }
    }
    unmount_lazily(&dir.join("fuse"));
}

/// Takes every mount at `at` away, whoever uses it.
fn unmount_lazily(at: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for _ in mounts.lines().filter(|line| line.split(' ').nth(1) == Some(text(at))) {
        run("umount", &["-l", text(at)]).ok();
    }
}

impl Machine {
    /// A blank disk with `filesystem` on it, mounted.
    pub fn start(dir: &Path, filesystem: Filesystem, sector_bytes: u32, size_bytes: u64) -> Self {
        std::fs::create_dir_all(dir).expect("a folder under target");
        let dir = dir.canonicalize().expect("it is there");
        tidy_up(&dir);
        let (data, fuse) = (dir.join("data"), dir.join("fuse"));
        for at in [&data, &fuse] {
            std::fs::create_dir_all(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        }
        let disk = Disk::start(&dir, &fuse, size_bytes);
        let image = fuse.join(FILE_NAME);
        let mut machine =
            Self { disk, data, filesystem, sector_bytes, image, device: None, is_mounted: false };
        machine.attach();
        machine.format();
        machine.mount().expect("a filesystem just made can be mounted");
        machine
    }

    fn device(&self) -> &str {
        self.device.as_deref().expect("attached")
    }

    pub fn attach(&mut self) {
        let sector = self.sector_bytes.to_string();
        let image = text(&self.image);
        let arguments = ["--find", "--show", "--direct-io=on", "--sector-size", &sector, image];
        self.device = Some(run("losetup", &arguments).unwrap_or_else(|error| panic!("{error}")));
        let direct = run("losetup", &["--noheadings", "--output", "DIO,LOG-SEC", self.device()]);
        let direct = direct.unwrap_or_else(|error| panic!("{error}"));
        let found: Vec<&str> = direct.split_whitespace().collect();
        assert_eq!(found, ["1", &sector], "direct I/O and sectors of {}", self.device());
    }

    fn format(&self) {
        let (device, sector) = (self.device(), format!("size={}", self.sector_bytes));
        let made = match self.filesystem {
            // Nothing is left to do later in the background, so that a cut hits what the broker does.
            Filesystem::Ext4 => {
                let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
                run("mkfs.ext4", &["-q", "-F", "-E", options, "-O", "has_journal", device])
            }
            Filesystem::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", "-s", &sector, device]),
        };
        made.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Mounts, which replays the filesystem's journal.
    pub fn mount(&mut self) -> Result<(), String> {
        let mut mounting = Command::new("mount")
            .args(["-t", self.filesystem.name(), self.device()])
            .arg(&self.data)
            .stderr(Stdio::piped())
            .spawn()
            .expect("mount is everywhere");
        while mounting.try_wait().expect("a child of ours").is_none() {
            if !self.disk.is_on() {
                self.let_xfs_give_up();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let outcome = mounting.wait_with_output().expect("a child of ours");
        if !outcome.status.success() {
            let said = String::from_utf8_lossy(&outcome.stderr);
            return Err(format!("{} can't be mounted: {}", self.filesystem.name(), said.trim()));
        }
        self.is_mounted = true;
        Ok(())
    }

    /// A mount whose disk goes in the middle of the replay tries its writes again for ever, unless told.
    fn let_xfs_give_up(&self) {
        let name = self.device().trim_start_matches("/dev/");
        for kind in ["EIO", "default"] {
            let setting = format!("/sys/fs/xfs/{name}/error/metadata/{kind}/max_retries");
            // There from some moment of the mount on, and on XFS alone.
            std::fs::write(setting, "0").ok();
        }
    }

    /// Unmounts and lets go of the device. The broker has ended, and the disk isn't frozen.
    pub fn take_down(&mut self) {
        let started = Instant::now();
        while self.is_mounted {
            match run("umount", &[text(&self.data)]) {
                Ok(_) => self.is_mounted = false,
                // What the dead broker had in flight may still be on its way.
                Err(error) if started.elapsed() > UNMOUNT_PATIENCE => {
                    eprintln!("{error}; unmounting it lazily");
                    run("umount", &["-l", text(&self.data)]).unwrap_or_else(|error| panic!("{error}"));
                    self.is_mounted = false;
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let Some(device) = self.device.take() else { return };
        run("losetup", &["--detach", &device]).unwrap_or_else(|error| panic!("{error}"));
        // The kernel lets go when the last user is gone; a second device over one file would be another disk.
        while run("losetup", &["--list", "--noheadings", "--output", "NAME"])
            .is_ok_and(|list| list.lines().any(|line| line.trim() == device))
        {
            assert!(started.elapsed() < UNMOUNT_PATIENCE, "{device} isn't let go");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of the filesystem: all and free.
    pub fn space(&self) -> (u64, u64) {
        let said = run("df", &["--block-size=1", "--output=size,avail", text(&self.data)]);
        let said = said.unwrap_or_else(|error| panic!("{error}"));
        let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [size, free] = numbers[..] else { panic!("df said {said}") };
        (size, free)
    }

    /// A file of `bytes` that leaves so much less for everybody.
    pub fn fill(&self, bytes: u64) -> Result<(), String> {
        run("fallocate", &["--length", &bytes.to_string(), text(&self.data.join("filler"))]).map(drop)
    }

    pub fn remove_filler(&self) {
        run("rm", &["-f", text(&self.data.join("filler"))]).unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // After a panic the disk may be in any state; what it doesn't answer can't be unmounted.
        self.disk.thaw();
        if std::thread::panicking() {
            self.disk.cut();
            run("umount", &["-l", text(&self.data)]).ok();
            if let Some(device) = &self.device {
                run("losetup", &["--detach", device]).ok();
            }
        } else {
            self.take_down();
        }
    }
}
