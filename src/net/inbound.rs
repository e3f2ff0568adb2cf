//! Inbound: a stream of bytes cut into frames.
//!
//! A frame that lies wholly in a receive buffer is read there, without a copy. The first part of a
//! larger one moves to a buffer with room for the frame; its pages are committed by the kernel as
//! bytes arrive, so a peer that announces 100 MiB and sends ten bytes costs ten bytes.

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
}

/// A buffer of a handled frame above this is given back instead of kept for the next one.
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;

impl Inbound {
    /// Handles every whole frame in what is pending and `bytes`.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        limit_bytes: impl Fn(&[u8]) -> usize,
        mut handle: impl FnMut(&[u8]) -> Flow,
    ) -> Result<Flow, FrameError> {
        if self.pending_bytes() > 0 {
            bytes = match self.top_up(bytes, &limit_bytes)? {
                Some(rest) => rest,
                None => return Ok(Flow::Continue),
            };
            // Taken out, so that a frame may be handled while it is borrowed.
            let pending = std::mem::take(&mut self.pending);
            let handled = handle_all(&pending[self.from..], &limit_bytes, &mut handle);
            self.pending = pending;
            let (handled_bytes, flow) = handled?;
            self.drop_handled(handled_bytes);
            if flow == Flow::Pause || self.pending_bytes() > 0 {
                self.keep(bytes);
                return Ok(flow);
            }
        }
        let (handled_bytes, flow) = handle_all(bytes, &limit_bytes, &mut handle)?;
        let rest = &bytes[handled_bytes..];
        if !rest.is_empty() {
            if let Split::Need(Some(need_bytes)) = split(rest, limit_bytes(rest))? {
                self.pending.reserve_exact(need_bytes.max(rest.len()));
            }
            self.pending.extend_from_slice(rest);
        }
        Ok(flow)
    }

    /// What was handled stays in front until the buffer is empty or would have to grow: moving the
    /// rest up after every frame would cost the whole buffer each time.
    fn drop_handled(&mut self, handled_bytes: usize) {
        self.from += handled_bytes;
        if self.from == self.pending.len() {
            self.from = 0;
            self.pending.clear();
            if self.pending.capacity() > KEPT_BYTES_MAX {
                self.pending = Vec::new();
            }
        }
    }

    /// Fills `pending` up to the end of its first frame and returns the rest of `bytes`; `None`
    /// when the frame still isn't whole.
    fn top_up<'a>(
        &mut self,
        mut bytes: &'a [u8],
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
            self.make_room(missing_bytes);
            self.pending.extend_from_slice(taken);
            bytes = rest;
        }
        Ok(Some(bytes))
    }

    /// Keeps bytes that came while the connection was paused.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.pending.extend_from_slice(bytes);
    }

    /// Grows by doubling, but never beyond what a frame needs by more than that.
    fn make_room(&mut self, bytes: usize) {
        if self.pending.capacity() - self.pending.len() < bytes {
            self.pending.drain(..std::mem::take(&mut self.from));
            self.pending.reserve(bytes);
        }
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
            let mut inbound = Inbound::default();
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut at = 0;
            while at < stream.len() || inbound.pending_bytes() > 0 {
                let end = (at + random.below(400) as usize).min(stream.len());
                let flow = inbound.push(
                    &stream[at..end],
                    |_| 1000,
                    |frame| {
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
    fn an_announced_length_commits_no_memory() {
        let mut inbound = Inbound::default();
        let flow = inbound.push(&(90u32 << 20).to_be_bytes(), |_| 100 << 20, |_| Flow::Continue);
        assert_eq!(flow.ok(), Some(Flow::Continue));
        assert_eq!(inbound.pending_bytes(), 4);
    }
}
