//! Frames: cuts a connection's bytes where they lie, without gathering those of a hot request.

use corelane::base::checksum::RunningCrc32c;

/// Length, key, version, correlation id.
const FRONT_BYTES: usize = 12;
/// Of the front, what the length counts.
const FRONT_COUNTED_BYTES: usize = 8;
const FRAME_BYTES_MAX: usize = 100 << 20;

/// What ended in the bytes given.
pub enum Frame<'a> {
    /// A request whose bytes nobody looks at.
    Hot { correlation_id: [u8; 4], crc: u32 },
    /// Any other, without its length.
    Cold(&'a [u8]),
}

#[derive(Default)]
pub struct Frames {
    front: [u8; FRONT_BYTES],
    front_bytes: usize,
    left_bytes: usize,
    gathered: Vec<u8>,
    crc: RunningCrc32c,
    is_hot: bool,
}

impl Frames {
    /// Cuts `bytes`; a frame for which `is_hot` says so of its key is only checksummed, if at all.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        is_checksummed: bool,
        mut is_hot: impl FnMut(i16) -> bool,
        mut each: impl FnMut(Frame<'_>),
    ) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.front_bytes < FRONT_BYTES {
                let taken = bytes.len().min(FRONT_BYTES - self.front_bytes);
                self.front[self.front_bytes..][..taken].copy_from_slice(&bytes[..taken]);
                self.front_bytes += taken;
                bytes = &bytes[taken..];
                if self.front_bytes < FRONT_BYTES {
                    return Ok(());
                }
                let length = i32::from_be_bytes(self.front[..4].try_into().expect("4 bytes"));
                let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
                self.left_bytes = length
                    .and_then(|length| length.checked_sub(FRONT_COUNTED_BYTES))
                    .ok_or("not the length of a request")?;
                self.is_hot = is_hot(i16::from_be_bytes([self.front[4], self.front[5]]));
                self.gathered.clear();
                self.gathered.extend_from_slice(&self.front[4..]);
                self.crc = RunningCrc32c::default();
            }
            let (own, behind) = bytes.split_at(bytes.len().min(self.left_bytes));
            bytes = behind;
            self.left_bytes -= own.len();
            if !self.is_hot {
                self.gathered.extend_from_slice(own);
            } else if is_checksummed {
                self.crc.update(own);
            }
            if self.left_bytes == 0 {
                self.front_bytes = 0;
                each(if self.is_hot {
                    let correlation_id = self.front[8..].try_into().expect("4 bytes");
                    Frame::Hot { correlation_id, crc: self.crc.value() }
                } else {
                    Frame::Cold(&self.gathered)
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane::base::checksum::crc32c;

    fn request(key: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
        let length = (FRONT_COUNTED_BYTES + body.len()) as i32;
        let front = [&length.to_be_bytes()[..], &key.to_be_bytes(), &[0, 9], &correlation_id.to_be_bytes()];
        [&front.concat(), body].concat()
    }

    #[test]
    fn frames_are_cut_alike_however_the_bytes_come() {
        let bytes =
            [request(3, 1, b"cold"), request(0, 2, b"hot one"), request(0, 3, b""), request(3, 4, b"")];
        let bytes = bytes.concat();
        for piece_bytes in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(piece_bytes) {
                let each = |frame: Frame<'_>| {
                    seen.push(match frame {
                        Frame::Hot { correlation_id, crc } => {
                            (i32::from_be_bytes(correlation_id), Some(crc), 0)
                        }
                        Frame::Cold(frame) => (0, None, frame.len()),
                    });
                };
                frames.feed(piece, true, |key| key == 0, each).expect("well formed");
            }
            let expected =
                [(0, None, 12), (2, Some(crc32c(b"hot one")), 0), (3, Some(crc32c(b"")), 0), (0, None, 8)];
            assert_eq!(seen, expected, "pieces of {piece_bytes} bytes");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for length in [-1, 0, 7, FRAME_BYTES_MAX as i32 + 1] {
            let bytes = [&length.to_be_bytes()[..], &[0; 8]].concat();
            assert!(Frames::default().feed(&bytes, true, |_| true, |_| {}).is_err(), "{length}");
        }
    }
}
