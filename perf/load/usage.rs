//! Usage: CPU time and memory of the measured processes, of this one, and of the machine, from /proc.
//!
//! A process's user and system time together are its precise run time: the kernel scales the two so that
//! their sum is, threads that ended and the ring's workers included.

use crate::Failure;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use std::fs;

/// One look at the clocks of the processes and the machine.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    broker_cpu_seconds: f64,
    broker_rss_bytes: u64,
    broker_rss_peak_bytes: u64,
    own_cpu_seconds: f64,
    kernel_seconds: f64,
    busy_seconds: f64,
    steal_seconds: f64,
}

/// What was used between two looks.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub cpu_seconds_per_million_records: f64,
    pub cpu_seconds_per_gib: f64,
    pub cpu_micros_per_request: f64,
    pub rss_bytes_before: u64,
    pub rss_bytes_after: u64,
    pub rss_bytes_peak: u64,
}

/// What else went on: a run beside much of it is to be discarded.
#[derive(Clone, Debug, Serialize)]
pub struct Surroundings {
    pub generator_cpu_seconds: f64,
    /// CPU time of the kernel's own threads: buffered writes are written back there, on nobody's account.
    pub kernel_cpu_seconds: f64,
    /// CPU time of every other process.
    pub other_cpu_seconds: f64,
    pub steal_seconds: f64,
}

impl Snapshot {
    pub fn take(pids: &[u32]) -> Result<Self, Failure> {
        let ticks = ticks_per_second()?;
        let (busy_seconds, steal_seconds) = machine_seconds(ticks)?;
        let mut snapshot = Self {
            broker_cpu_seconds: 0.0,
            broker_rss_bytes: 0,
            broker_rss_peak_bytes: 0,
            own_cpu_seconds: process_seconds(std::process::id(), ticks)?,
            kernel_seconds: kernel_seconds(ticks)?,
            busy_seconds,
            steal_seconds,
        };
        for pid in pids {
            snapshot.broker_cpu_seconds += process_seconds(*pid, ticks)?;
            let status = read(&format!("/proc/{pid}/status"))?;
            snapshot.broker_rss_bytes += status_bytes(&status, "VmRSS:");
            snapshot.broker_rss_peak_bytes += status_bytes(&status, "VmHWM:");
        }
        Ok(snapshot)
    }

    pub fn usage(&self, after: &Self, records: u64, bytes: u64, requests: u64) -> Usage {
        let cpu_seconds = after.broker_cpu_seconds - self.broker_cpu_seconds;
        let per = |count: f64| if count > 0.0 { cpu_seconds / count } else { 0.0 };
        Usage {
            cpu_seconds,
            cpu_seconds_per_million_records: per(records as f64 / 1e6),
            cpu_seconds_per_gib: per(bytes as f64 / (1u64 << 30) as f64),
            cpu_micros_per_request: per(requests as f64 / 1e6),
            rss_bytes_before: self.broker_rss_bytes,
            rss_bytes_after: after.broker_rss_bytes,
            rss_bytes_peak: after.broker_rss_peak_bytes,
        }
    }

    pub fn surroundings(&self, after: &Self) -> Surroundings {
        let own = after.own_cpu_seconds - self.own_cpu_seconds;
        let broker = after.broker_cpu_seconds - self.broker_cpu_seconds;
        // Kernel threads that ended in between take their time with them.
        let kernel = (after.kernel_seconds - self.kernel_seconds).max(0.0);
        Surroundings {
            generator_cpu_seconds: own,
            kernel_cpu_seconds: kernel,
            other_cpu_seconds: (after.busy_seconds - self.busy_seconds - own - broker - kernel).max(0.0),
            steal_seconds: after.steal_seconds - self.steal_seconds,
        }
    }
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::new(format!("{path}: {error}")))
}

fn ticks_per_second() -> Result<f64, Failure> {
    sysconf(SysconfVar::CLK_TCK)?
        .map(|ticks| ticks as f64)
        .ok_or_else(|| Failure::new("the kernel doesn't tell its clock ticks"))
}

fn process_seconds(pid: u32, ticks: f64) -> Result<f64, Failure> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    user_and_system_ticks(&stat)
        .map(|total| total as f64 / ticks)
        .ok_or_else(|| Failure::new(format!("/proc/{pid}/stat is not understood")))
}

/// Fields 14 and 15, counted behind the name, which may hold blanks and parentheses.
fn user_and_system_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Flag of a kernel thread in field 9 of its stat.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// CPU time of all kernel threads that exist now.
fn kernel_seconds(ticks: f64) -> Result<f64, Failure> {
    let mut total = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        // Processes end while they are listed.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if is_kernel_thread(&stat) {
            total += user_and_system_ticks(&stat).unwrap_or(0);
        }
    }
    Ok(total as f64 / ticks)
}

fn is_kernel_thread(stat: &str) -> bool {
    let flags = stat.rsplit_once(')').and_then(|(_, behind)| behind.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

fn status_bytes(status: &str, field: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Busy and stolen time of all cores.
fn machine_seconds(ticks: f64) -> Result<(f64, f64), Failure> {
    let stat = read("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = first.split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    // Interrupts are whoever's they happened to stop.
    let [user, nice, system, _, _, _, _, steal] = fields
        .get(..8)
        .and_then(|f| f.try_into().ok())
        .ok_or_else(|| Failure::new("/proc/stat is not understood"))?;
    Ok(((user + nice + system) / ticks, steal / ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 33 1 1";
        assert_eq!(user_and_system_ticks(stat), Some(300));
        assert!(!is_kernel_thread(stat));
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 33 0 0"));
        assert_eq!(status_bytes("VmHWM:\t 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), 12 * 1024);
    }

    #[test]
    fn this_process_is_measured() {
        let before = Snapshot::take(&[std::process::id()]).expect("/proc is there");
        let after = Snapshot::take(&[std::process::id()]).expect("/proc is there");
        let usage = before.usage(&after, 1, 1, 1);
        assert!(usage.rss_bytes_after > 0 && usage.cpu_seconds >= 0.0);
    }
}
