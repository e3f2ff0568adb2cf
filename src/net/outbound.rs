//! Outbound: responses leave in the order of their requests, whatever order they become ready in.

use std::collections::VecDeque;

use crate::base::slab::Key;
use crate::metrics::tally::{Tally, copied};

/// The place of a request's response in its connection's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u64);

impl Turn {
    /// Of a request without a response.
    pub const NONE: Self = Self(u64::MAX);
}

#[derive(Debug)]
enum Slot<S> {
    Waiting,
    /// A whole frame, or nothing: of a request without a response.
    Ready(Vec<u8>),
    /// A frame that is produced piece by piece as the socket drains.
    Stream(S),
}

/// What is next to send.
#[derive(Debug)]
pub enum Next<'a, S> {
    /// Nothing, or the oldest response isn't ready.
    Nothing,
    /// The oldest response is a stream: fill from it, and `stream_done` when it ended.
    Stream(&'a mut S),
}

/// A request that was taken in and whose response hasn't left.
#[derive(Debug)]
struct Place<S> {
    cost_bytes: usize,
    /// By which its time is measured, if it is.
    trace: Key,
    slot: Slot<S>,
}

/// `S` names a stream to whoever fills it.
#[derive(Debug)]
pub struct Outbound<S> {
    places: VecDeque<Place<S>>,
    /// Traces of the responses that were taken and haven't left yet, as far as anybody knows.
    taken: Vec<Key>,
    /// The turn of the first place.
    first: u64,
    /// Of all places.
    cost_bytes: usize,
}

impl<S> Default for Outbound<S> {
    fn default() -> Self {
        Self { places: VecDeque::new(), taken: Vec::new(), first: 0, cost_bytes: 0 }
    }
}

impl<S> Outbound<S> {
    /// Opens a place at the end of the order, for a request that takes about `cost_bytes` of memory.
    pub fn open(&mut self, cost_bytes: usize, trace: Key) -> Turn {
        self.cost_bytes += cost_bytes;
        self.places.push_back(Place { cost_bytes, trace, slot: Slot::Waiting });
        Turn(self.first + self.places.len() as u64 - 1)
    }

    /// Gives up the place opened last: its request turned out not to be one.
    pub fn withdraw(&mut self, turn: Turn) {
        assert_eq!(turn.0, self.first + self.places.len() as u64 - 1, "only the newest place is given up");
        if let Some(place) = self.places.pop_back() {
            self.cost_bytes -= place.cost_bytes;
        }
    }

    fn slot(&mut self, turn: Turn) -> &mut Slot<S> {
        let index = turn.0.checked_sub(self.first).expect("a turn is answered once");
        let Place { slot, .. } = self.places.get_mut(index as usize).expect("a turn was opened");
        assert!(matches!(slot, Slot::Waiting), "a turn is answered once");
        slot
    }

    pub fn ready(&mut self, turn: Turn, response: Vec<u8>) {
        *self.slot(turn) = Slot::Ready(response);
    }

    pub fn stream(&mut self, turn: Turn, stream: S) {
        *self.slot(turn) = Slot::Stream(stream);
    }

    /// Moves whole responses at the head of the order into `out` until it holds `bytes_max` or
    /// more; stops before a stream or one that waits.
    pub fn take(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Next<'_, S> {
        while out.len() < bytes_max && matches!(self.places.front(), Some(Place { slot: Slot::Ready(_), .. }))
        {
            let Some(Slot::Ready(response)) = self.pop() else { unreachable!("matched above") };
            if response.is_empty() {
                continue;
            }
            if out.is_empty() {
                *out = response;
            } else {
                out.extend_from_slice(&response);
                copied(Tally::CopySend, response.len());
            }
        }
        match self.places.front_mut() {
            Some(Place { slot: Slot::Stream(stream), .. }) => Next::Stream(stream),
            _ => Next::Nothing,
        }
    }

    /// The stream at the head has given its last byte.
    pub fn stream_done(&mut self) {
        let done = self.pop();
        assert!(matches!(done, Some(Slot::Stream(_))), "only the head streams");
    }

    fn pop(&mut self) -> Option<Slot<S>> {
        let place = self.places.pop_front()?;
        self.cost_bytes -= place.cost_bytes;
        self.first += 1;
        if place.trace != Key::NONE {
            self.taken.push(place.trace);
        }
        Some(place.slot)
    }

    /// Responses not taken yet, those that wait included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What the requests of those responses cost.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// Traces of the responses taken.
    pub fn taken(&self) -> &[Key] {
        &self.taken
    }

    /// All responses taken have left: moves their traces to `traces`.
    pub fn take_left(&mut self, traces: &mut Vec<Key>) {
        traces.append(&mut self.taken);
    }

    /// The trace of the oldest response not taken yet.
    pub fn next_trace(&self) -> Key {
        self.places.front().map_or(Key::NONE, |place| place.trace)
    }

    /// The traces of all that never leave, when the connection ends.
    pub fn into_traces(self) -> impl Iterator<Item = Key> {
        self.places.into_iter().map(|place| place.trace).chain(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_response_keeps_its_place() {
        let mut outbound: Outbound<u8> = Outbound::default();
        let (silent, answered) = (outbound.open(1, Key::NONE), outbound.open(1, Key::NONE));
        outbound.ready(answered, vec![1]);
        let mut out = Vec::new();
        outbound.take(&mut out, 100);
        assert!(out.is_empty());
        outbound.ready(silent, Vec::new());
        outbound.take(&mut out, 100);
        assert_eq!((out, outbound.is_empty(), outbound.cost_bytes()), (vec![1], true, 0));
    }

    #[test]
    fn a_later_response_waits_for_the_earlier() {
        let mut outbound: Outbound<u8> = Outbound::default();
        let trace = |index| Key { index, generation: 0 };
        let (a, b, c) = (outbound.open(1, trace(1)), outbound.open(2, trace(2)), outbound.open(4, trace(3)));
        let mut out = Vec::new();
        outbound.ready(b, b"b".to_vec());
        assert!(matches!(outbound.take(&mut out, 100), Next::Nothing));
        assert!(out.is_empty());
        assert_eq!(outbound.cost_bytes(), 7);
        outbound.ready(a, b"a".to_vec());
        outbound.stream(c, 7);
        assert!(matches!(outbound.take(&mut out, 100), Next::Stream(7)));
        assert_eq!(out, b"ab");
        assert_eq!(outbound.cost_bytes(), 4);
        assert_eq!((outbound.taken(), outbound.next_trace()), (&[trace(1), trace(2)][..], trace(3)));
        outbound.stream_done();
        assert!(outbound.is_empty());
        let mut left = Vec::new();
        outbound.take_left(&mut left);
        assert_eq!(left, [trace(1), trace(2), trace(3)]);
        let turn = outbound.open(8, Key::NONE);
        outbound.withdraw(turn);
        assert_eq!(outbound.cost_bytes(), 0);
    }

    #[test]
    fn a_full_buffer_takes_no_more() {
        let mut outbound: Outbound<u8> = Outbound::default();
        for _ in 0..3 {
            let turn = outbound.open(0, Key::NONE);
            outbound.ready(turn, vec![0; 10]);
        }
        let mut out = Vec::new();
        outbound.take(&mut out, 15);
        assert_eq!((out.len(), outbound.len()), (20, 1));
    }
}
