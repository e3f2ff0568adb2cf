//! Log limit: clients can't fill the log by what they send.

use crate::base::ids::MonotonicNs;

/// Lines about clients per second.
const PER_SECOND_MAX: u32 = 10;

#[derive(Debug, Default)]
pub struct LogLimit {
    second: u64,
    count: u32,
}

impl LogLimit {
    /// True while this second's lines aren't used up.
    pub fn allows(&mut self, now: MonotonicNs) -> bool {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.count) = (second, 0);
        }
        self.count += 1;
        self.count <= PER_SECOND_MAX
    }
}
