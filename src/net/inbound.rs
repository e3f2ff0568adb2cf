//! Inbound: a stream of bytes cut into frames.
//!
//! A frame that lies wholly in a receive buffer is read there, without a copy. The first part of a
//! larger one moves to a buffer with room for the frame, and the rest of a large one is received there;
//! its pages are committed by the kernel as bytes arrive, so a peer that announces 100 MiB and sends ten
//! bytes costs ten bytes.

use crate::base::ids::MonotonicNs;
use crate::metrics::tally::{Tally, copied};
use crate::protocol::frame::{FrameError, LENGTH_BYTES, Split, split};

/// What to do after a frame was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next frame.
    Continue,
    /// Keep the rest for `resume`: too much is in flight on this connection.
    Pause,
}

#[derive(Debug, Default)]
pub struct Inbound {
    /// Received and not handled yet, from the start of a frame at `from` on.
    pending: Vec<u8>,
    /// Bytes at the front of `pending` that were handled.
    from: usize,
    /// When the oldest byte of `pending` came.
    since: MonotonicNs,
}

/// A connection between frames keeps a buffer of this size at most; larger ones go back to the shard's.
const OWN_BYTES_MAX: usize = 64 * 1024;

/// Buffers for large frames, shared by a shard's connections: fresh memory for each frame would cost
/// more than the copy into it.
#[derive(Debug, Default)]
pub struct FrameBuffers {
    free: Vec<Vec<u8>>,
    sum_bytes: usize,
}

impl FrameBuffers {
    const SUM_BYTES_MAX: usize = 32 * 1024 * 1024;

    /// An empty buffer with room for `bytes`.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        match self.free.iter().position(|buffer| buffer.capacity() >= bytes) {
            Some(index) => {
                let buffer = self.free.swap_remove(index);
                self.sum_bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(bytes),
        }
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if bytes > OWN_BYTES_MAX && self.sum_bytes + bytes <= Self::SUM_BYTES_MAX {
            buffer.clear();
            self.sum_bytes += bytes;
            self.free.push(buffer);
        }
    }
}

impl Inbound {
    /// Handles every whole frame in what is pending and `bytes`, which came `now`. The handler is told when a
    /// frame's first byte came.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        now: MonotonicNs,
        buffers: &mut FrameBuffers,
        limit_bytes: impl Fn(&[u8]) -> usize,
        mut handle: impl FnMut(&[u8], MonotonicNs) -> Flow,
    ) -> Result<Flow, FrameError> {
        if self.pending_bytes() > 0 {
            bytes = match self.top_up(bytes, buffers, &limit_bytes)? {
                Some(rest) => rest,
                None => return Ok(Flow::Continue),
            };
            // Taken out, so that a frame may be handled while it is borrowed.
            let pending = std::mem::take(&mut self.pending);
            let since = self.since;
            let handled = handle_all(&pending[self.from..], &limit_bytes, &mut |frame| handle(frame, since));
            self.pending = pending;
            let (handled_bytes, flow) = handled?;
            self.drop_handled(handled_bytes, buffers);
            if flow == Flow::Pause || self.pending_bytes() > 0 {
                self.keep(bytes, now, buffers);
                return Ok(flow);
            }
        }
        let (handled_bytes, flow) = handle_all(bytes, &limit_bytes, &mut |frame| handle(frame, now))?;
        let rest = &bytes[handled_bytes..];
        if !rest.is_empty() {
            let need_bytes = match split(rest, limit_bytes(rest))? {
                Split::Need(Some(need_bytes)) => need_bytes,
                _ => 0,
            };
            self.make_room(need_bytes.max(rest.len()), buffers);
            self.pending.extend_from_slice(rest);
            copied(Tally::CopyFrame, rest.len());
            self.since = now;
        }
        Ok(flow)
    }

    /// What was handled stays in front until the buffer is empty or would have to grow: moving the
    /// rest up after every frame would cost the whole buffer each time.
    fn drop_handled(&mut self, handled_bytes: usize, buffers: &mut FrameBuffers) {
        self.from += handled_bytes;
        if self.from == self.pending.len() {
            self.from = 0;
            self.pending.clear();
            if self.pending.capacity() > OWN_BYTES_MAX {
                buffers.give(std::mem::take(&mut self.pending));
            }
        }
    }

    /// Fills `pending` up to the end of its first frame and returns the rest of `bytes`; `None`
    /// when the frame still isn't whole.
    fn top_up<'a>(
        &mut self,
        mut bytes: &'a [u8],
        buffers: &mut FrameBuffers,
        limit_bytes: &impl Fn(&[u8]) -> usize,
    ) -> Result<Option<&'a [u8]>, FrameError> {
        loop {
            let pending = &self.pending[self.from..];
            let Split::Need(need_bytes) = split(pending, limit_bytes(pending))? else { break };
            if bytes.is_empty() {
                return Ok(None);
            }
            let missing_bytes = need_bytes.unwrap_or(LENGTH_BYTES) - pending.len();
            let (taken, rest) = bytes.split_at(missing_bytes.min(bytes.len()));
            self.make_room(missing_bytes, buffers);
            self.pending.extend_from_slice(taken);
            copied(Tally::CopyFrame, taken.len());
            bytes = rest;
        }
        Ok(Some(bytes))
    }

    /// Keeps bytes that came while the connection was paused.
    pub fn keep(&mut self, bytes: &[u8], now: MonotonicNs, buffers: &mut FrameBuffers) {
        if self.pending_bytes() == 0 {
            self.since = now;
        }
        self.make_room(bytes.len(), buffers);
        self.pending.extend_from_slice(bytes);
        copied(Tally::CopyFrame, bytes.len());
    }

    /// Grows by doubling, but never beyond what a frame needs by more than that.
    fn make_room(&mut self, bytes: usize, buffers: &mut FrameBuffers) {
        if self.pending.capacity() - self.pending.len() >= bytes {
            return;
        }
        let unhandled = &self.pending[self.from..];
        let need_bytes = unhandled.len() + bytes;
        copied(Tally::CopyFrameGrown, unhandled.len());
        if need_bytes <= self.pending.capacity() {
            self.pending.drain(..self.from);
        } else {
            let mut larger = buffers.take(need_bytes.max(2 * unhandled.len()));
            larger.extend_from_slice(unhandled);
            buffers.give(std::mem::replace(&mut self.pending, larger));
        }
        self.from = 0;
    }

    /// Bytes that the frame lacks which has begun; 0 where its length isn't known yet. That it is allowed was
    /// found when its beginning was pushed.
    pub fn missing_bytes(&self) -> usize {
        let pending = &self.pending[self.from..];
        match split(pending, usize::MAX) {
            Ok(Split::Need(Some(need_bytes))) => need_bytes - pending.len(),
            _ => 0,
        }
    }

    /// The buffer of the frame that has begun, with room for all of it; it goes on with `fill_end`.
    pub fn fill_begin(&mut self, buffers: &mut FrameBuffers) -> Vec<u8> {
        self.make_room(self.missing_bytes(), buffers);
        std::mem::take(&mut self.pending)
    }

    pub fn fill_end(&mut self, buffer: Vec<u8>) {
        assert!(self.pending.is_empty(), "nothing else is received meanwhile");
        self.pending = buffer;
    }

    /// The buffer of a connection that ends.
    pub fn into_buffer(self) -> Vec<u8> {
        self.pending
    }

    pub fn pending_bytes(&self) -> usize {
        self.pending.len() - self.from
    }
}

/// Handles the whole frames of `bytes` until one asks for a pause; returns how many bytes they were.
fn handle_all(
    bytes: &[u8],
    limit_bytes: &impl Fn(&[u8]) -> usize,
    handle: &mut impl FnMut(&[u8]) -> Flow,
) -> Result<(usize, Flow), FrameError> {
    let mut at = 0;
    while let Split::Frame { frame, rest } = split(&bytes[at..], limit_bytes(&bytes[at..]))? {
        let flow = handle(frame);
        at = bytes.len() - rest.len();
        if flow == Flow::Pause {
            return Ok((at, Flow::Pause));
        }
    }
    Ok((at, Flow::Continue))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    fn frame(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes(), body].concat()
    }

    /// Frames come out whole and in order, however the stream is cut and wherever it pauses.
    #[test]
    fn frames_survive_every_cut_and_pause() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let bodies: Vec<Vec<u8>> = (0..20)
                .map(|_| {
                    let mut body = vec![0; 10 + random.below(300) as usize];
                    random.fill(&mut body);
                    body
                })
                .collect();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
            let (mut inbound, mut buffers) = (Inbound::default(), FrameBuffers::default());
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut at = 0;
            while at < stream.len() || inbound.pending_bytes() > 0 {
                let end = (at + random.below(400) as usize).min(stream.len());
                let flow = inbound.push(
                    &stream[at..end],
                    MonotonicNs(0),
                    &mut buffers,
                    |_| 1000,
                    |frame, _| {
                        got.push(frame.to_vec());
                        if random.chance(1, 3) { Flow::Pause } else { Flow::Continue }
                    },
                );
                assert!(flow.is_ok(), "seed {seed}");
                at = end;
            }
            assert!(got == bodies, "seed {seed}");
        }
    }

    #[test]
    fn large_frames_share_their_buffers_within_a_bound() {
        let (mut inbound, mut buffers) = (Inbound::default(), FrameBuffers::default());
        let large = frame(&vec![7; 300_000]);
        let mut first = None;
        for _ in 0..3 {
            for piece in large.chunks(65_536) {
                let flow =
                    inbound.push(piece, MonotonicNs(0), &mut buffers, |_| 1 << 20, |_, _| Flow::Continue);
                assert_eq!(flow.ok(), Some(Flow::Continue));
            }
            assert_eq!(inbound.pending.capacity(), 0, "between frames nothing large is kept");
            let buffer = buffers.free[0].as_ptr();
            assert_eq!(*first.get_or_insert(buffer), buffer);
        }
        for _ in 0..100 {
            buffers.give(Vec::with_capacity(1 << 20));
        }
        let kept: usize = buffers.free.iter().map(Vec::capacity).sum();
        assert!(kept == buffers.sum_bytes && kept <= FrameBuffers::SUM_BYTES_MAX, "{kept}");
    }

    #[test]
    fn a_frame_is_as_old_as_its_first_byte() {
        let (mut inbound, mut buffers) = (Inbound::default(), FrameBuffers::default());
        let stream = [frame(&[1; 10]), frame(&[2; 20]), frame(&[3; 30])].concat();
        let mut came = Vec::new();
        // The first frame comes in one piece, the second in two, and the first byte of the third while paused.
        for (at, range) in [(1, 0..16), (2, 16..39), (3, 39..72)] {
            let handle = |frame: &[u8], since: MonotonicNs| {
                came.push((frame.len(), since.0));
                if frame.len() == 20 { Flow::Pause } else { Flow::Continue }
            };
            let flow = inbound.push(&stream[range], MonotonicNs(at), &mut buffers, |_| 1000, handle);
            assert_eq!(flow.is_ok_and(|flow| flow == Flow::Pause), at == 2);
        }
        assert_eq!(came, [(10, 1), (20, 1), (30, 2)]);
    }

    #[test]
    fn an_announced_length_commits_no_memory() {
        let (mut inbound, mut buffers) = (Inbound::default(), FrameBuffers::default());
        let announced = (90u32 << 20).to_be_bytes();
        let flow =
            inbound.push(&announced, MonotonicNs(0), &mut buffers, |_| 100 << 20, |_, _| Flow::Continue);
        assert_eq!(flow.ok(), Some(Flow::Continue));
        assert_eq!(inbound.pending_bytes(), 4);
    }
}
