//! Knob: one setting of the machine, as a shell script that checks, applies and reverts it.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::server::config::{Config, Cores};

/// What all knobs share; their files read it from beside them, the binary puts it in place of that line.
const SHARED: &str = include_str!("../../tuning/knob.sh");
const READS_SHARED: &str = ". \"${0%/*}/knob.sh\"\n";

/// How long a knob lasts that only looks.
pub const NOTHING_CHANGED: &str = "nothing is changed";

pub struct Knob {
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! knobs {
    ($($name:literal),* $(,)?) => {
        &[$(Knob { name: $name, text: include_str!(concat!("../../tuning/", $name, ".sh")) }),*]
    };
}

/// In the order of the data path: process, cores, network, disk, memory.
pub const KNOBS: &[Knob] = knobs![
    "memlock",
    "open-files",
    "clock-source",
    "cores",
    "interrupts",
    "congestion",
    "socket-buffers",
    "scheduler",
    "read-ahead",
    "write-cache",
    "mount-options",
    "trim",
    "write-back",
    "huge-pages",
    "swappiness",
];

/// What a knob's file says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub knob: String,
    pub what: String,
    pub why: String,
    pub risk: String,
    /// What was measured, with the report; or that nothing was.
    pub effect: String,
    pub lasts: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads only.
    Check,
    /// Keeps what is there, then changes it. Nothing when it is as wanted.
    Apply,
    /// Puts back what was there before the first apply.
    Revert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// Could be better. Of apply and revert: failed.
    Off,
    /// This machine doesn't have it.
    Absent,
}

/// What the knobs are for.
#[derive(Clone, Debug)]
pub struct Place {
    pub log_dirs: Vec<PathBuf>,
    /// Cores of shards; none when these aren't pinned.
    pub cores: Vec<usize>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Off => "off",
            Self::Absent => "absent",
        })
    }
}

impl Place {
    /// Errors: a log directory that isn't absolute can't be made so, or the cores aren't known.
    pub fn of(config: &Config) -> Result<Self, String> {
        let absolute = |dir: &PathBuf| {
            let found = dir.canonicalize().or_else(|_| std::path::absolute(dir));
            found.map_err(|error| format!("{}: {error}", dir.display()))
        };
        let cores = match &config.cores {
            Cores::Unpinned => Vec::new(),
            Cores::List(list) => list.clone(),
            Cores::All => core_affinity::get_core_ids()
                .ok_or("the cores this process may use can't be read")?
                .into_iter()
                .map(|core| core.id)
                .collect(),
        };
        Ok(Self { log_dirs: config.log_dirs.iter().map(absolute).collect::<Result<_, _>>()?, cores })
    }
}

pub fn find(name: &str) -> Option<&'static Knob> {
    KNOBS.iter().find(|knob| knob.name == name)
}

impl Knob {
    /// `None` when the file doesn't begin as all do (`# Name: text`, going on with indented lines).
    pub fn header(&self) -> Option<Header> {
        const INDENT: &str = "#         ";
        let mut header = Header::default();
        let lines = self.text.strip_prefix("#!/bin/sh\n")?.lines();
        let mut field: Option<&mut String> = None;
        for line in lines.take_while(|line| line.starts_with('#')) {
            if let Some(more) = line.strip_prefix(INDENT) {
                let field = field.as_mut()?;
                field.push(' ');
                field.push_str(more);
                continue;
            }
            let (name, text) = line.strip_prefix("# ")?.split_once(':')?;
            let found = match name {
                "Knob" => &mut header.knob,
                "What" => &mut header.what,
                "Why" => &mut header.why,
                "Risk" => &mut header.risk,
                "Effect" => &mut header.effect,
                "Lasts" => &mut header.lasts,
                _ => return None,
            };
            *found = text.trim().to_string();
            field = Some(found);
        }
        Some(header)
    }

    /// The file with what it shares in place: needs no other file.
    fn script(&self) -> String {
        assert!(self.text.contains(READS_SHARED), "{}: doesn't read knob.sh", self.name);
        self.text.replacen(READS_SHARED, SHARED, 1)
    }

    /// The command that runs it. `CORELANE_STATE` and `CORELANE_ROOT` are taken from the environment.
    pub fn command(&self, action: Action, place: &Place, is_dry_run: bool) -> Command {
        let list = |items: Vec<String>| items.join(",");
        let verb = match action {
            Action::Check => "check",
            Action::Apply => "apply",
            Action::Revert => "revert",
        };
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(self.script()).arg(format!("{}.sh", self.name)).arg(verb).stdin(Stdio::null());
        command
            .env("CORELANE_DATA", list(place.log_dirs.iter().map(|dir| dir.display().to_string()).collect()));
        command.env("CORELANE_CORES", list(place.cores.iter().map(usize::to_string).collect()));
        command.env("CORELANE_DRY_RUN", if is_dry_run { "yes" } else { "" });
        // What it prints is compared, not read by people of one country.
        command.env("LC_ALL", "C");
        command
    }

    /// Status and the one line of a check, without the status in front.
    pub fn check(&self, place: &Place) -> Result<(Status, String), String> {
        let output = self.command(Action::Check, place, false).output();
        let output = output.map_err(|error| format!("/bin/sh can't be run: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.trim_end().split_once(": ");
        match (output.status.code(), found) {
            (Some(0), Some(("ok", text))) => Ok((Status::Ok, text.to_string())),
            (Some(1), Some(("off", text))) => Ok((Status::Off, text.to_string())),
            (Some(2), Some(("absent", text))) => Ok((Status::Absent, text.to_string())),
            _ => Err(format!(
                "{}: the check failed: {said}{}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim_end()
            )),
        }
    }
}
