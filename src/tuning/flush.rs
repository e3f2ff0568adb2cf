//! Flush: how a drive takes the journal's writes, as a histogram.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ring::probe::{FlushProbe, ProbeError, flush_probe};

/// Writes of each size. A drive that takes 10 ms for a flush is measured in 5 s, a good one in a tenth of a second.
const WRITES_COUNT: usize = 256;
/// One block: a lone record's commit group. 64 KiB: a group of a busy lane.
const GROUPS_BYTES: [usize; 2] = [4 << 10, 64 << 10];

#[derive(Debug, Serialize)]
pub struct Flush {
    pub dir: PathBuf,
    pub group_bytes: usize,
    pub count: usize,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// Without gaps, smallest first. The counts add up to `count`.
    pub histogram: Vec<Bucket>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Those that took less than this, and not less than the bucket before.
    pub below_us: u64,
    pub count: usize,
}

/// Both sizes; the probe of the last tells about the directory, too.
pub fn measure(dir: &Path) -> Result<(Vec<Flush>, FlushProbe), ProbeError> {
    let mut measured = Vec::new();
    let mut last = None;
    for group_bytes in GROUPS_BYTES {
        let probe = flush_probe(dir, WRITES_COUNT, group_bytes)?;
        measured.push(Flush {
            dir: dir.to_path_buf(),
            group_bytes,
            count: probe.sorted_us.len(),
            p50_us: probe.percentile_us(50),
            p99_us: probe.percentile_us(99),
            max_us: probe.percentile_us(100),
            histogram: histogram(&probe.sorted_us),
        });
        last = Some(probe);
    }
    Ok((measured, last.expect("there are two sizes")))
}

/// Bounds are 2, 3, 4, 6, 8, 12 … microseconds.
fn histogram(sorted_us: &[u64]) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let mut rest = sorted_us;
    let bounds = (1..63).flat_map(|power| [1 << power, 3 << (power - 1)]);
    for below_us in bounds {
        let count = rest.partition_point(|&took_us| took_us < below_us);
        rest = &rest[count..];
        if count > 0 || !buckets.is_empty() {
            buckets.push(Bucket { below_us, count });
        }
        if rest.is_empty() {
            break;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_one_bucket() {
        let found = histogram(&[5, 6, 7, 8, 100]);
        let counts: Vec<(u64, usize)> = found.iter().map(|bucket| (bucket.below_us, bucket.count)).collect();
        let gap = [(12, 1), (16, 0), (24, 0), (32, 0), (48, 0), (64, 0), (96, 0), (128, 1)];
        assert_eq!(counts[..2], [(6, 1), (8, 2)]);
        assert_eq!(counts[2..], gap);
        assert_eq!(histogram(&[0, 1]), [Bucket { below_us: 2, count: 2 }]);
        let long = histogram(&[u64::from(u32::MAX)]);
        assert_eq!(long.iter().map(|bucket| bucket.count).sum::<usize>(), 1);
    }
}
