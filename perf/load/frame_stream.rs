//! Frame stream: frames out of received bytes, for answers that come in the order of requests.

use corelane::protocol::frame::{self, FrameError, Split};

/// Largest answer believed: a Fetch of 100 MiB and its frame.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Bytes of an answer that is not whole yet.
#[derive(Default)]
pub struct FrameStream {
    partial: Vec<u8>,
}

impl FrameStream {
    pub fn clear(&mut self) {
        self.partial.clear();
    }

    /// Gives every frame that is whole now to `each`.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.partial.is_empty() {
                match frame::split(bytes, ANSWER_BYTES_MAX)? {
                    Split::Frame { frame, rest } => {
                        each(frame)?;
                        bytes = rest;
                    }
                    Split::Need(_) => {
                        self.partial.extend_from_slice(bytes);
                        return Ok(());
                    }
                }
                continue;
            }
            // As many bytes as the partial frame lacks, so that nothing is copied twice.
            let lacking = match frame::split(&self.partial, ANSWER_BYTES_MAX)? {
                Split::Need(None) => frame::LENGTH_BYTES - self.partial.len(),
                Split::Need(Some(total)) => total - self.partial.len(),
                Split::Frame { frame, .. } => {
                    each(frame)?;
                    self.partial.clear();
                    continue;
                }
            };
            if bytes.is_empty() {
                return Ok(());
            }
            let (taken, rest) = bytes.split_at(lacking.min(bytes.len()));
            self.partial.extend_from_slice(taken);
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for length in [8u8, 9, 200, 8] {
            stream.extend_from_slice(&u32::from(length).to_be_bytes());
            stream.extend(std::iter::repeat_n(length, length.into()));
        }
        for cut in 1..stream.len() {
            let mut frames = FrameStream::default();
            let mut found = Vec::new();
            for part in stream.chunks(cut) {
                let outcome = frames.feed(part, |frame| {
                    found.push((frame.len(), frame[0]));
                    Ok::<(), FrameError>(())
                });
                assert_eq!(outcome, Ok(()));
            }
            assert_eq!(found, [(8, 8), (9, 9), (200, 200), (8, 8)], "{cut}");
        }
    }
}
