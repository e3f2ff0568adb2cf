//! Draw: random values of the kinds messages are made of.

use bytes::{Bytes, BytesMut};
use corelane::base::ids::TopicId;
use corelane::base::random::Random;
use kacrab_protocol::{KafkaString, RawTaggedField};
use kafka_protocol::protocol::{Decodable, Encodable};

pub struct Draw(pub Random);

/// Runs `check` with many seeds, or with the one of the environment.
pub fn for_seeds(count: u64, check: impl Fn(&mut Draw)) {
    let chosen = std::env::var("CORELANE_SEED").ok().map(|text| text.parse().expect("a number"));
    for seed in chosen.map_or(0..count, |seed: u64| seed..seed + 1) {
        let guard = Named(seed);
        check(&mut Draw(Random::new(seed)));
        drop(guard);
    }
}

/// Prints the seed when its check panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with CORELANE_SEED={}", self.0);
        }
    }
}

impl Draw {
    pub fn below(&mut self, bound: u64) -> usize {
        self.0.below(bound) as usize
    }

    pub fn chance(&mut self) -> bool {
        self.0.chance(1, 2)
    }

    /// Mostly small, sometimes at the ends of the type.
    pub fn i64(&mut self) -> i64 {
        match self.below(6) {
            0 => i64::MAX,
            1 => i64::MIN,
            2 => -1,
            3 => self.0.next_u64() as i64,
            _ => self.below(1000) as i64,
        }
    }

    pub fn i32(&mut self) -> i32 {
        self.i64() as i32
    }

    pub fn i16(&mut self) -> i16 {
        self.i64() as i16
    }

    pub fn i8(&mut self) -> i8 {
        self.i64() as i8
    }

    pub fn text(&mut self) -> String {
        let length = match self.below(20) {
            0 => 300,
            1 => 127,
            2 => 126,
            _ => self.below(12),
        };
        (0..length).map(|_| ['a', 'Z', '.', '-', 'é', '漢'][self.below(6)]).collect()
    }

    pub fn blob(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; [0, 1, 61, 127, 16384][self.below(5)]];
        self.0.fill(&mut bytes);
        bytes
    }

    pub fn id(&mut self) -> TopicId {
        let mut id = TopicId::NONE;
        self.0.fill(&mut id.0);
        id
    }

    pub fn list<T>(&mut self, max: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }

    pub fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance().then(|| make(self))
    }

    /// Fields of the future: tags above every known one.
    pub fn unknown_tags(&mut self, is_flexible: bool) -> Vec<RawTaggedField> {
        if !is_flexible {
            return Vec::new();
        }
        let count = self.below(3) as u32;
        (0..count).map(|tag| RawTaggedField { tag: 100 + tag, data: Bytes::from(self.blob()) }).collect()
    }
}

pub fn text(value: &str) -> KafkaString {
    KafkaString::from(value.to_owned())
}

/// What `kafka-protocol` makes of `bytes`, written again.
pub fn through_the_second_codec<T: Decodable + Encodable>(version: i16, bytes: &[u8]) -> Vec<u8> {
    let mut input = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut input, version).expect("the second codec reads it");
    assert!(input.is_empty(), "the second codec reads all of it");
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("the second codec writes it");
    out.to_vec()
}
