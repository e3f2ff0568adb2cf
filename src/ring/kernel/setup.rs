//! Setup: makes the io_uring instances, and explains to an operator why that failed.

use std::io;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use nix::sys::resource::{Resource, getrlimit};

use crate::ring::{RingError, RingOptions};

/// Locked memory of a process that exited is given back tens of milliseconds later, sometimes more
/// than a second: a quick restart sees ENOMEM for that long.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Entries of the second ring, which carries flushes only.
const FLUSH_ENTRIES_COUNT: u32 = 64;

/// io-wq workers of the thread, for regular files and for the rest. They run what the kernel can't
/// do without blocking: opens, allocations, flushes, unlinks.
const WORKERS_MAX: [u32; 2] = [16, 16];

/// The shard's own ring: one issuer, completions only when it enters the kernel.
pub(super) fn main_ring(options: &RingOptions) -> Result<IoUring, RingError> {
    let ring = retry_short_memory(|| {
        IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_clamp()
            .setup_cqsize(options.entries_count * 4)
            .build(options.entries_count)
    })
    .map_err(|error| explain(&error))?;
    let mut workers_max = WORKERS_MAX;
    ring.submitter().register_iowq_max_workers(&mut workers_max).map_err(|error| explain(&error))?;
    Ok(ring)
}

/// The second ring, for flushes: completions are posted by the worker that ran the flush, so they
/// don't wait until the shard enters the kernel.
pub(super) fn flush_ring() -> Result<IoUring, RingError> {
    retry_short_memory(|| IoUring::builder().setup_clamp().build(FLUSH_ENTRIES_COUNT))
        .map_err(|error| explain(&error))
}

/// Builds what locks memory, again for a while when that is short.
pub fn retry_short_memory<T>(mut build: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let end = Instant::now() + RETRY_MAX;
    let mut pause = Duration::from_millis(5);
    loop {
        match build() {
            Ok(built) => return Ok(built),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && Instant::now() < end => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the kernel refused, and the remedy. Matched by errno.
pub(super) fn explain(error: &io::Error) -> RingError {
    let what = format!("the kernel refused io_uring: {error}");
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is blocked here: set sysctl kernel.io_uring_disabled=0, and in a container \
             allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
             (Docker: --security-opt seccomp=PROFILE; Kubernetes: a Localhost seccompProfile)"
                .to_string()
        }
        Some(libc::ENOSYS) => {
            "this kernel, or the sandbox it runs in (gVisor, an old seccomp profile), has no \
             io_uring: use Linux 6.1 or newer and a profile that allows it"
                .to_string()
        }
        Some(libc::EINVAL) => {
            "this kernel is too old for the ring features in use: use Linux 6.1 or newer".to_string()
        }
        Some(libc::ENOMEM) => format!(
            "locked memory is short: each shard needs about 64 KiB of RLIMIT_MEMLOCK, which is {} now and counts \
             per user; raise it (systemd: LimitMEMLOCK=8M; container: --ulimit memlock=8388608)",
            limit_text(Resource::RLIMIT_MEMLOCK)
        ),
        Some(libc::EMFILE | libc::ENFILE) => format!(
            "descriptors are short: RLIMIT_NOFILE is {} now; raise it (systemd: LimitNOFILE=1048576)",
            limit_text(Resource::RLIMIT_NOFILE)
        ),
        _ => "see `corelane check` for what this host offers".to_string(),
    };
    RingError { what, remedy }
}

fn limit_text(resource: Resource) -> String {
    match getrlimit(resource) {
        Ok((libc::RLIM_INFINITY, _)) => "unlimited".to_string(),
        Ok((soft, _)) => soft.to_string(),
        Err(error) => format!("unknown ({error})"),
    }
}

/// How many slots a table of registered files may have: the kernel holds it to RLIMIT_NOFILE.
pub(super) fn registered_slots(descriptors_max: u32) -> u32 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    descriptors_max.min(u32::try_from(limit).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy_of(errno: i32) -> String {
        explain(&io::Error::from_raw_os_error(errno)).remedy
    }

    #[test]
    fn refusals_name_their_remedy() {
        assert!(remedy_of(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(remedy_of(libc::EPERM).contains("seccomp"));
        assert!(remedy_of(libc::ENOSYS).contains("Linux 6.1"));
        assert!(remedy_of(libc::ENOMEM).contains("RLIMIT_MEMLOCK"));
    }

    #[test]
    fn only_short_memory_is_tried_again() {
        let mut tries = 0;
        let result = retry_short_memory(|| -> io::Result<()> {
            tries += 1;
            Err(io::Error::from_raw_os_error(if tries < 3 { libc::ENOMEM } else { libc::EPERM }))
        });
        assert!(result.is_err());
        assert_eq!(tries, 3);
    }
}
