//! Keys: which record of a partition has which key, so that what compaction has to leave is known exactly.
//!
//! A record's number decides its key, so writer and checker need nothing from each other. Record numbers are
//! offsets as long as one run on one connection wrote the whole partition.

use corelane::base::random::Random;

/// Keys are numbers of a fixed size, so that they can be patched in place.
pub const KEY_BYTES: usize = 8;

/// How many keys a partition has.
#[derive(Clone, Copy, Debug)]
pub struct Keys(pub u64);

impl Keys {
    /// The key of a record: evenly among all, with no order.
    pub fn of(self, number: u64) -> [u8; KEY_BYTES] {
        self.index(number).to_be_bytes()
    }

    fn index(self, number: u64) -> u64 {
        Random::new(number).below(self.0)
    }

    /// Of the first `count` records those that are the last of their key, in order.
    pub fn last_numbers(self, count: u64) -> Vec<u64> {
        let mut is_known = vec![false; self.0 as usize];
        let mut last: Vec<u64> = (0..count)
            .rev()
            .filter(|number| !std::mem::replace(&mut is_known[self.index(*number) as usize], true))
            .collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_last_numbers_are_those_a_map_would_keep() {
        for (keys, count) in [(1, 0), (1, 9), (10, 5), (10, 200), (1000, 1000)] {
            let keys = Keys(keys);
            let map: BTreeMap<_, u64> = (0..count).map(|number| (keys.of(number), number)).collect();
            let mut expected: Vec<u64> = map.into_values().collect();
            expected.sort_unstable();
            assert_eq!(keys.last_numbers(count), expected);
        }
    }

    #[test]
    fn ten_records_a_key_leave_a_tenth() {
        let left = Keys(10_000).last_numbers(100_000).len();
        assert!((9_980..=10_000).contains(&left), "{left}");
    }
}
