//! Schedule: when requests are meant to be sent, decided before anything is sent.

use crate::options::{Arrivals, Rate};
use corelane::base::random::Random;

/// Intended send times of one connection.
pub struct Schedule {
    kind: Kind,
    next_ns: u64,
}

enum Kind {
    /// As soon as there is room.
    Max,
    Constant {
        gap_ns: f64,
        first_ns: u64,
        index: u64,
    },
    Poisson {
        mean_ns: f64,
        random: Random,
    },
}

impl Schedule {
    /// The schedule of connection `index` of `count`, which share `rate`: together they send evenly.
    pub fn new(
        rate: Rate,
        records_per_request: usize,
        arrivals: Arrivals,
        seed: u64,
        (index, count): (usize, usize),
        start_ns: u64,
    ) -> Self {
        let Rate::RecordsPerSecond(rate) = rate else {
            return Self { kind: Kind::Max, next_ns: start_ns };
        };
        let gap_ns = records_per_request as f64 / rate * 1e9 * count as f64;
        let first_ns = start_ns + (gap_ns * index as f64 / count as f64) as u64;
        let kind = match arrivals {
            Arrivals::Constant => Kind::Constant { gap_ns, first_ns, index: 0 },
            Arrivals::Poisson => {
                Kind::Poisson { mean_ns: gap_ns, random: Random::new(seed.wrapping_add(index as u64)) }
            }
        };
        let mut schedule = Self { kind, next_ns: first_ns };
        if arrivals == Arrivals::Poisson {
            schedule.next_ns = start_ns;
            schedule.advance();
        }
        schedule
    }

    pub fn is_max(&self) -> bool {
        matches!(self.kind, Kind::Max)
    }

    /// Intended send time of the next request; `now` when they have none.
    pub fn next_ns(&self, now_ns: u64) -> u64 {
        if self.is_max() { now_ns } else { self.next_ns }
    }

    pub fn advance(&mut self) {
        match &mut self.kind {
            Kind::Max => {}
            Kind::Constant { gap_ns, first_ns, index } => {
                *index += 1;
                // From the first time on, so that roundings don't add up.
                self.next_ns = *first_ns + (*gap_ns * *index as f64) as u64;
            }
            Kind::Poisson { mean_ns, random } => {
                // In (0, 1]: the logarithm is finite.
                let uniform = (random.below(1 << 53) + 1) as f64 / (1u64 << 53) as f64;
                self.next_ns += (-uniform.ln() * *mean_ns) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, connections: usize) -> Vec<u64> {
        let rate = Rate::RecordsPerSecond(1_000_000.0);
        let mut times = Vec::new();
        for index in 0..connections {
            let mut schedule = Schedule::new(rate, 10, arrivals, 1, (index, connections), 500);
            while schedule.next_ns(0) < 1_000_000_500 {
                times.push(schedule.next_ns(0));
                schedule.advance();
            }
        }
        times.sort_unstable();
        times
    }

    #[test]
    fn connections_together_send_evenly_at_the_rate() {
        let times = times(Arrivals::Constant, 3);
        assert_eq!(times.len(), 100_000);
        assert!(times.windows(2).all(|pair| (9_999..=10_001).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary() {
        let times = times(Arrivals::Poisson, 3);
        assert!((98_000..102_000).contains(&times.len()), "{}", times.len());
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > 10_000).count();
        // A gap is longer than the mean once in e times.
        assert!((35_000..38_500).contains(&long), "{long}");
    }
}
