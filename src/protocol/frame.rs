//! Frame: a big-endian length of 4 bytes and that many bytes, on a stream.
//!
//! Promises: decides from the first 4 bytes, before anything is received into memory of that length.
//! Never:    looks into a frame.

use std::fmt;

/// Bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;

/// Smallest request: API key, version, correlation id.
pub const REQUEST_BYTES_MIN: usize = 8;

/// What stands at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// More bytes are needed; with the length in front counted, `Some(total)` once it is known.
    Need(Option<usize>),
    /// One whole frame, without its length, and what follows it.
    Frame { frame: &'a [u8], rest: &'a [u8] },
}

/// A protocol that isn't Kafka's, recognised by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    Http,
    Tls,
    Ssh,
}

/// Why the stream can't go on. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    Negative { length: i32 },
    TooShort { length: usize },
    TooLong { length: usize, limit: usize },
    Foreign(Foreign),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Negative { length } => write!(f, "frame length {length} is negative"),
            Self::TooShort { length } => {
                write!(f, "frame of {length} bytes is shorter than a request header")
            }
            Self::TooLong { length, limit } => {
                write!(f, "frame of {length} bytes is over the limit of {limit}")
            }
            Self::Foreign(Foreign::Http) => f.write_str("this is HTTP, not the Kafka protocol"),
            Self::Foreign(Foreign::Tls) => f.write_str("this is TLS on a plaintext listener"),
            Self::Foreign(Foreign::Ssh) => f.write_str("this is SSH, not the Kafka protocol"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Bytes of the frame that follows `prefix`, which holds its length.
///
/// A foreign protocol is named only when its first bytes are no permitted length, so no Kafka frame is
/// ever taken for one: as lengths they all are above 369 million.
pub fn frame_bytes(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    let Ok(bytes) = usize::try_from(length) else {
        return Err(FrameError::Negative { length });
    };
    if bytes > limit {
        return Err(match foreign(prefix) {
            Some(foreign) => FrameError::Foreign(foreign),
            None => FrameError::TooLong { length: bytes, limit },
        });
    }
    if bytes < REQUEST_BYTES_MIN {
        return Err(FrameError::TooShort { length: bytes });
    }
    Ok(bytes)
}

/// Splits the first frame off `bytes`. `limit` is for the frame without its length.
pub fn split(bytes: &[u8], limit: usize) -> Result<Split<'_>, FrameError> {
    let Some((prefix, behind)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(Split::Need(None));
    };
    let length = frame_bytes(*prefix, limit)?;
    Ok(match behind.split_at_checked(length) {
        Some((frame, rest)) => Split::Frame { frame, rest },
        None => Split::Need(Some(LENGTH_BYTES + length)),
    })
}

/// Opens a frame at the end of `out` and returns its position, for [`end`].
pub fn begin(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    at
}

/// Closes the frame opened at `at`: everything behind it, and `elsewhere_bytes` that are sent in between
/// but aren't in `out`. Returns the bytes to send, the length in front counted.
pub fn end(out: &mut [u8], at: usize, elsewhere_bytes: usize) -> usize {
    let length = out.len() - at - LENGTH_BYTES + elsewhere_bytes;
    let prefix = i32::try_from(length).expect("responses are bounded below 2 GiB").to_be_bytes();
    out[at..at + LENGTH_BYTES].copy_from_slice(&prefix);
    length + LENGTH_BYTES
}

fn foreign(prefix: [u8; LENGTH_BYTES]) -> Option<Foreign> {
    match &prefix {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"DELE" | b"OPTI" | b"PATC" | b"CONN" | b"TRAC" | b"PRI " => {
            Some(Foreign::Http)
        }
        [0x16, 0x03, 0x00..=0x04, _] => Some(Foreign::Tls),
        b"SSH-" => Some(Foreign::Ssh),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100 * 1024 * 1024;

    #[test]
    fn a_frame_is_cut_at_every_length_and_the_rest_is_kept() {
        let mut stream = vec![0, 0, 0, 9];
        stream.extend_from_slice(b"123456789tail");
        for end in 0..stream.len() {
            let expected = match end {
                0..4 => Split::Need(None),
                4..13 => Split::Need(Some(13)),
                _ => Split::Frame { frame: b"123456789", rest: &stream[13..end] },
            };
            assert_eq!(split(&stream[..end], LIMIT), Ok(expected), "{end}");
        }
    }

    #[test]
    fn impossible_lengths_are_named_before_a_byte_of_the_frame_is_there() {
        for (prefix, expected) in [
            (i32::MIN.to_be_bytes(), FrameError::Negative { length: i32::MIN }),
            ((-1i32).to_be_bytes(), FrameError::Negative { length: -1 }),
            (0i32.to_be_bytes(), FrameError::TooShort { length: 0 }),
            (7i32.to_be_bytes(), FrameError::TooShort { length: 7 }),
            (i32::MAX.to_be_bytes(), FrameError::TooLong { length: i32::MAX as usize, limit: LIMIT }),
            (*b"GET ", FrameError::Foreign(Foreign::Http)),
            (*b"POST", FrameError::Foreign(Foreign::Http)),
            ([0x16, 0x03, 0x01, 0x02], FrameError::Foreign(Foreign::Tls)),
            (*b"SSH-", FrameError::Foreign(Foreign::Ssh)),
        ] {
            assert_eq!(frame_bytes(prefix, LIMIT), Err(expected));
        }
        assert_eq!(frame_bytes((LIMIT as i32).to_be_bytes(), LIMIT), Ok(LIMIT));
        assert!(frame_bytes((LIMIT as i32 + 1).to_be_bytes(), LIMIT).is_err());
    }

    #[test]
    fn a_written_frame_counts_what_is_sent_from_elsewhere() {
        let mut out = b"before".to_vec();
        let at = begin(&mut out);
        out.extend_from_slice(b"abc");
        assert_eq!(end(&mut out, at, 5), 12);
        assert_eq!(out, b"before\0\0\0\x08abc");
    }
}
