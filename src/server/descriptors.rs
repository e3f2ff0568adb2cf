//! Descriptors: how many the process may have, and how many of them segment files take.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The rest is for connections.
const FILES_SHARE: u64 = 4;
/// A lane works with the fewest, slower. An open file takes the kernel 1.5 KiB.
const FILES_MIN: u64 = 64;
const FILES_MAX: u64 = 8_192;
/// Where the limit isn't known: Linux's own default.
const LIMIT: u64 = 1_024;

/// Takes all descriptors that the process may have, as a JVM does. Returns how many.
pub fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return LIMIT };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Segment files that each of so many lanes keeps open.
pub fn files_open_max(limit: u64, lanes_count: usize) -> u32 {
    let share = limit / FILES_SHARE / lanes_count.max(1) as u64;
    share.clamp(FILES_MIN, FILES_MAX) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_a_quarter_of_the_descriptors() {
        assert_eq!(files_open_max(20_000, 1), 5_000);
        assert_eq!(files_open_max(20_000, 4), 1_250);
        assert_eq!(files_open_max(1_048_576, 1), 8_192, "what the kernel keeps for them stays small");
        assert_eq!(files_open_max(256, 4), 64, "a lane can't work with fewer");
    }
}
