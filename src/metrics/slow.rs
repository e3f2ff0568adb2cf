//! Slow: the last slow requests of a shard, with the times of their stages.
//!
//! Plain cells like all others, so that the shard neither waits nor allocates and the page needs nothing of
//! the shard. A record has a number that is odd while it's being written: one that changed while it was read
//! is left out of the page.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::stages::{Stage, TracedApi};

/// Requests that a shard remembers.
pub const SLOW_COUNT: usize = 64;

pub const CLIENT_ID_BYTES_MAX: usize = 64;
/// Of a topic's name; Kafka takes no longer ones.
const TOPIC_BYTES_MAX: usize = 256;

const TEXTS_AT: usize = 8 + Stage::COUNT;
const WORDS: usize = TEXTS_AT + (CLIENT_ID_BYTES_MAX + TOPIC_BYTES_MAX) / 8;

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// When it was done, milliseconds since 1970.
    pub wall_ms: i64,
    pub api: TracedApi,
    pub version: i16,
    /// At most [`CLIENT_ID_BYTES_MAX`] bytes of it.
    pub client_id: String,
    /// Where it names one partition only.
    pub partition: Option<(String, i32)>,
    /// Of the request.
    pub bytes: u64,
    pub hops: u64,
    pub total_ns: u64,
    pub stages_ns: [u64; Stage::COUNT],
}

type Words = [u64; WORDS];

fn put_text(words: &mut [u64], text: &str) {
    for (word, bytes) in words.iter_mut().zip(text.as_bytes().chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
}

fn text(words: &[u64]) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    // A character that the bound has cut isn't worth an error.
    String::from_utf8_lossy(&bytes).into_owned()
}

impl SlowRequest {
    fn words(&self) -> Words {
        let mut words = [0; WORDS];
        words[0] = self.wall_ms as u64;
        words[1] = self.api as u64;
        words[2] = self.version as u64;
        words[3] = self.bytes;
        words[4] = self.hops;
        words[5] = self.total_ns;
        let (topic, partition) = self.partition.as_ref().map_or(("", -1), |(topic, index)| (topic, *index));
        words[6] = partition as u64;
        words[8..TEXTS_AT].copy_from_slice(&self.stages_ns);
        let (client_id, topic_words) = words[TEXTS_AT..].split_at_mut(CLIENT_ID_BYTES_MAX / 8);
        put_text(client_id, &self.client_id);
        put_text(topic_words, topic);
        words
    }

    fn from_words(words: &Words) -> Self {
        let (client_id, topic) = words[TEXTS_AT..].split_at(CLIENT_ID_BYTES_MAX / 8);
        let partition = words[6] as i32;
        let api = TracedApi::ALL.into_iter().find(|api| *api as u64 == words[1]);
        Self {
            wall_ms: words[0] as i64,
            api: api.expect("it was written from one"),
            version: words[2] as i16,
            client_id: text(client_id),
            partition: (partition >= 0).then(|| (text(topic), partition)),
            bytes: words[3],
            hops: words[4],
            total_ns: words[5],
            stages_ns: words[8..TEXTS_AT].try_into().expect("as many as there are stages"),
        }
    }
}

struct RecordCells {
    /// 0: never written. Odd: being written.
    number: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// One shard's slow requests; the oldest is written over.
pub struct SlowCells {
    records: Box<[RecordCells]>,
    /// Records ever written.
    count: AtomicU64,
    limit_ms: AtomicU64,
}

impl SlowCells {
    pub(super) fn new() -> Self {
        let record =
            |_| RecordCells { number: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self {
            records: (0..SLOW_COUNT).map(record).collect(),
            count: AtomicU64::new(0),
            limit_ms: AtomicU64::new(0),
        }
    }

    // ---- Written by the shard ----------------------------------------------------------------

    /// From so long on a request is slow.
    pub fn set_limit_ms(&self, ms: u64) {
        self.limit_ms.store(ms, Ordering::Relaxed);
    }

    pub fn record(&self, request: &SlowRequest) {
        let count = self.count.load(Ordering::Relaxed);
        let cells = &self.records[count as usize % SLOW_COUNT];
        let number = cells.number.load(Ordering::Relaxed);
        cells.number.store(number + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (cell, word) in cells.words.iter().zip(request.words()) {
            cell.store(word, Ordering::Relaxed);
        }
        cells.number.store(number + 2, Ordering::Release);
        self.count.store(count + 1, Ordering::Relaxed);
    }

    // ---- Read by others ----------------------------------------------------------------------

    pub fn limit_ms(&self) -> u64 {
        self.limit_ms.load(Ordering::Relaxed)
    }

    /// Slow requests since the start, those forgotten included.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Those remembered, in no order.
    pub fn requests(&self) -> Vec<SlowRequest> {
        self.records.iter().filter_map(RecordCells::read).collect()
    }
}

impl RecordCells {
    fn read(&self) -> Option<SlowRequest> {
        let number = self.number.load(Ordering::Acquire);
        let words: Words = std::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole =
            number > 0 && number.is_multiple_of(2) && self.number.load(Ordering::Relaxed) == number;
        is_whole.then(|| SlowRequest::from_words(&words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u64) -> SlowRequest {
        SlowRequest {
            wall_ms: number as i64,
            api: TracedApi::Fetch,
            version: 17,
            client_id: "ü".repeat(number as usize % 32),
            partition: number.is_multiple_of(2).then(|| ("t".repeat(number as usize % 250), number as i32)),
            bytes: number,
            hops: 2,
            total_ns: 3 * number,
            stages_ns: std::array::from_fn(|stage| number + stage as u64),
        }
    }

    #[test]
    fn the_newest_are_remembered_as_they_were() {
        let cells = SlowCells::new();
        assert!(cells.requests().is_empty());
        let all: Vec<SlowRequest> = (0..200).map(request).collect();
        all.iter().for_each(|request| cells.record(request));
        let mut found = cells.requests();
        found.sort_by_key(|request| request.wall_ms);
        assert_eq!(found, all[200 - SLOW_COUNT..]);
        assert_eq!(cells.count(), 200);
    }

    #[test]
    fn a_record_that_is_being_written_is_left_out() {
        let cells = SlowCells::new();
        cells.record(&request(1));
        cells.records[0].number.store(3, Ordering::Relaxed);
        assert!(cells.requests().is_empty());
    }

    #[test]
    fn a_client_id_is_cut_at_its_bound() {
        let cells = SlowCells::new();
        cells.record(&SlowRequest { client_id: "c".repeat(500), ..request(4) });
        assert_eq!(cells.requests()[0].client_id, "c".repeat(CLIENT_ID_BYTES_MAX));
        assert_eq!(cells.requests()[0].partition, request(4).partition);
    }
}
