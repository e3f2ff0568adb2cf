//! Partitioning: which partition a batch goes to, and which keys its records have, as if a client's
//! partitioner had chosen.
//!
//! Promises: the same seed gives the same choices; a record's key is one that belongs to its partition.

use crate::keys::KEY_BYTES;
use corelane::base::random::Random;

/// How often each key occurs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDistribution {
    Uniform,
    /// The n-th key as often as 1 / n to this power.
    Zipf(f64),
}

impl std::str::FromStr for KeyDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let exponent = text.strip_prefix("zipf:").and_then(|exponent| exponent.parse::<f64>().ok());
        match (text, exponent) {
            ("uniform", _) => Ok(Self::Uniform),
            (_, Some(exponent)) if exponent > 0.0 && exponent.is_finite() => Ok(Self::Zipf(exponent)),
            _ => Err("uniform, or zipf: and an exponent above 0".to_string()),
        }
    }
}

impl KeyDistribution {
    /// Of key `index`, from 0; not normalised.
    fn weight(self, index: u64) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Zipf(exponent) => ((index + 1) as f64).powf(-exponent),
        }
    }
}

/// Draws places as often as their weights say.
pub struct Draw {
    /// Of the weights up to each place.
    sums: Vec<f64>,
    random: Random,
}

impl Draw {
    /// Precondition: one weight is above 0.
    pub fn new(weights: impl Iterator<Item = f64>, seed: u64) -> Self {
        let mut sum = 0.0;
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { sums: sums.collect(), random: Random::new(seed) }
    }

    pub fn next_place(&mut self) -> usize {
        let total = *self.sums.last().expect("there is something to draw");
        let drawn = self.random.below(1 << 53) as f64 / (1u64 << 53) as f64 * total;
        self.sums.partition_point(|sum| *sum <= drawn).min(self.sums.len() - 1)
    }
}

/// The topic's partitions as a partitioner sees them.
pub struct Partitioning {
    /// Share of all batches; their sum is 1.
    shares: Vec<f64>,
    /// Keys of each partition with their weights; empty where no keys decide.
    keys: Vec<Vec<(u64, f64)>>,
}

impl Partitioning {
    /// Batches without keys: each goes anywhere.
    pub fn sticky(partitions_count: usize) -> Self {
        Self { shares: vec![1.0 / partitions_count as f64; partitions_count], keys: Vec::new() }
    }

    /// The key decides. A key is its number, big-endian, of 8 bytes.
    pub fn keyed(keys_count: u64, distribution: KeyDistribution, partitions_count: usize) -> Self {
        let mut keys = vec![Vec::new(); partitions_count];
        for key in 0..keys_count {
            let partition = partition_of(&key.to_be_bytes(), partitions_count);
            keys[partition].push((key, distribution.weight(key)));
        }
        let weight = |keys: &Vec<(u64, f64)>| keys.iter().map(|(_, weight)| weight).sum::<f64>();
        let total: f64 = keys.iter().map(weight).sum();
        let shares = keys.iter().map(|keys| weight(keys) / total).collect();
        Self { shares, keys }
    }

    pub fn share(&self, partition: i32) -> f64 {
        self.shares[partition as usize]
    }

    /// Draws places in `partitions`, one of which has a share.
    pub fn choice(&self, partitions: &[i32], seed: u64) -> Draw {
        Draw::new(partitions.iter().map(|partition| self.share(*partition)), seed)
    }

    /// Draws keys of one partition; `None` where no keys decide.
    pub fn keys_of(&self, partition: i32, seed: u64) -> Option<impl FnMut() -> [u8; KEY_BYTES]> {
        let keys = self.keys.get(partition as usize)?;
        let mut draw = Draw::new(keys.iter().map(|(_, weight)| *weight), seed);
        Some(move || keys[draw.next_place()].0.to_be_bytes())
    }
}

/// The partition of a key, as Kafka's clients compute it.
fn partition_of(key: &[u8], partitions_count: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions_count
}

/// `Utils.murmur2` of Kafka's clients.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word = (word ^ word >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_equals_the_examples_of_kafkas_own_test() {
        for (text, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    /// Largest difference between a share and how often it was drawn.
    fn error(partitioning: &Partitioning, partitions: usize) -> f64 {
        const DRAWS: usize = 200_000;
        let all: Vec<i32> = (0..partitions as i32).collect();
        let mut choice = partitioning.choice(&all, 5);
        let mut drawn = vec![0; partitions];
        (0..DRAWS).for_each(|_| drawn[choice.next_place()] += 1);
        let differences = drawn.iter().zip(&partitioning.shares);
        differences.map(|(count, share)| (f64::from(*count) / DRAWS as f64 - share).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn partitions_are_drawn_by_their_shares() {
        let uniform = Partitioning::keyed(100_000, KeyDistribution::Uniform, 8);
        assert!(uniform.shares.iter().all(|share| (share - 0.125).abs() < 0.01), "{:?}", uniform.shares);
        let zipf = Partitioning::keyed(1000, KeyDistribution::Zipf(1.2), 8);
        // By hand: the first key alone has 1 / sum(n^-1.2, n = 1..=1000) of all.
        let first = 1.0 / (1..=1000).map(|n| f64::from(n).powf(-1.2)).sum::<f64>();
        let its = zipf.shares[partition_of(&0u64.to_be_bytes(), 8)];
        assert!(first > 0.22 && its >= first && its < first + 0.2, "{first} {its}");
        for partitioning in [uniform, zipf, Partitioning::sticky(8)] {
            assert!((partitioning.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let error = error(&partitioning, 8);
            assert!(error < 0.005, "{error}");
        }
    }

    #[test]
    fn keys_belong_to_their_partition_and_follow_the_distribution() {
        let partitioning = Partitioning::keyed(1000, KeyDistribution::Zipf(1.0), 4);
        let partition = partition_of(&0u64.to_be_bytes(), 4) as i32;
        let mut next_key = partitioning.keys_of(partition, 3).expect("keys decide");
        let keys: Vec<_> = (0..10_000).map(|_| next_key()).collect();
        assert!(keys.iter().all(|key| partition_of(key, 4) == partition as usize));
        let first = keys.iter().filter(|key| **key == [0; 8]).count() as f64 / keys.len() as f64;
        let total: f64 = (1..=1000).map(|n| 1.0 / f64::from(n)).sum();
        let expected = 1.0 / total / partitioning.share(partition);
        assert!((first - expected).abs() < 0.02, "{first} {expected}");
        assert!(Partitioning::sticky(4).keys_of(0, 3).is_none());
    }

    #[test]
    fn few_keys_leave_partitions_without_any() {
        let partitioning = Partitioning::keyed(1, KeyDistribution::Uniform, 8);
        let with_keys = partition_of(&0u64.to_be_bytes(), 8);
        let all: Vec<i32> = (0..8).collect();
        let mut choice = partitioning.choice(&all, 1);
        assert!((0..100).all(|_| choice.next_place() == with_keys));
    }
}
