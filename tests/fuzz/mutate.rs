//! Mutate: valid inputs, damaged in the ways that find mistakes in readers.

use corelane::base::random::Random;

/// No input gets longer.
const INPUT_BYTES_MAX: usize = 64 * 1024;

const BLOCK_BYTES: usize = 4096;
const FRONT_BYTES: usize = 256;

/// Numbers at the edges of the types that formats use.
const EDGES: [i64; 14] = [
    0,
    1,
    -1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX,
    i64::MIN,
];

pub struct Mutator {
    random: Random,
    inputs: Vec<Vec<u8>>,
}

impl Mutator {
    /// Precondition: there is an input.
    pub fn new(random: Random, inputs: Vec<Vec<u8>>) -> Self {
        assert!(!inputs.is_empty(), "a target has a valid input to begin with");
        Self { random, inputs }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound.max(1) as u64) as usize
    }

    /// One of the inputs with one to eight changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let index = self.below(self.inputs.len());
        let mut input = self.inputs[index].clone();
        // Mostly few: each change closes the ways behind it.
        for _ in 0..1 + self.random.below(8).min(self.random.below(8)) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX.max(self.inputs[index].len()));
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            input.push(self.random.next_u64() as u8);
            return;
        }
        let at = self.place(input.len());
        match self.below(10) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.random.next_u64() as u8,
            2 => input[at] = input[at].wrapping_add([1, 0xff][self.below(2)]),
            3 | 4 => self.write_edge(input, at),
            5 => input.truncate(at),
            6 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            7 => {
                let end = (at + 1 + self.below(32)).min(input.len());
                let copied = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, copied);
            }
            8 => {
                let mut noise = vec![0; 1 + self.below(8)];
                self.random.fill(&mut noise);
                input.splice(at..at, noise);
            }
            _ => {
                let index = self.below(self.inputs.len());
                let other = self.inputs[index].clone();
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    /// Anywhere, and often near the front of a block, where files have their headers.
    fn place(&mut self, bytes: usize) -> usize {
        let at = self.below(bytes);
        if bytes <= BLOCK_BYTES || self.random.chance(1, 2) {
            return at;
        }
        let near_front = at / BLOCK_BYTES * BLOCK_BYTES + self.below(FRONT_BYTES);
        near_front.min(bytes - 1)
    }

    /// Writes a number at the edge of its type, in either endianness.
    fn write_edge(&mut self, input: &mut [u8], at: usize) {
        let edge = EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as i64 - 1);
        let bytes = [1, 2, 4, 8][self.below(4)].min(input.len() - at);
        if self.random.chance(1, 2) {
            input[at..at + bytes].copy_from_slice(&edge.to_le_bytes()[..bytes]);
        } else {
            input[at..at + bytes].copy_from_slice(&edge.to_be_bytes()[8 - bytes..]);
        }
    }
}
