//! Header: what stands in front of every request and response.
//!
//! Sources: message schemas RequestHeader, ResponseHeader; KIP-482, KIP-511.

use crate::base::ids::CorrelationId;
use crate::protocol::api_key::ApiKey;
use crate::protocol::frame;
use crate::protocol::reader::{DecodeError, Reader};
use std::fmt;

/// Request header, versions 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub key: ApiKey,
    /// As sent: whether it is served is the caller's to decide.
    pub version: i16,
    pub correlation_id: CorrelationId,
    /// Null and empty are the same thing, as in Kafka.
    pub client_id: &'a str,
}

/// Why a frame has no readable header. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    UnknownApiKey(i16),
    Malformed(DecodeError),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownApiKey(key) => write!(f, "unknown API key {key}"),
            Self::Malformed(error) => write!(f, "malformed request header: {error}"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<DecodeError> for HeaderError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl<'a> RequestHeader<'a> {
    /// Splits `frame` into its header and its body.
    pub fn parse(frame: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        // The client id has its fixed form in both versions: KIP-482 left it alone, so that a header
        // can be read before it is known whether the version is.
        let mut reader = Reader::new(frame, false);
        let number = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = CorrelationId(reader.i32()?);
        let key = ApiKey::from_number(number).ok_or(HeaderError::UnknownApiKey(number))?;
        let client_id = reader.nullable_string()?.unwrap_or("");
        let mut reader = Reader::new(reader.rest(), key.is_flexible(version));
        reader.skip_tagged_fields()?;
        Ok((Self { key, version, correlation_id, client_id }, reader.rest()))
    }
}

/// Opens a response frame at the end of `out` with its header; the position is for [`frame::end`].
pub fn begin_response(out: &mut Vec<u8>, key: ApiKey, version: i16, correlation_id: CorrelationId) -> usize {
    let at = frame::begin(out);
    out.extend_from_slice(&correlation_id.0.to_be_bytes());
    if key.response_header_version(version) > 0 {
        out.push(0);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_version_follows_key_and_version() {
        // Produce v8 (header 1) and v9 (header 2, one unknown tagged field), then a body.
        let old = [0, 0, 0, 8, 0, 0, 0, 5, 0, 2, b'm', b'e', 0xaa];
        let new = [0, 0, 0, 9, 0, 0, 0, 5, 0, 2, b'm', b'e', 1, 7, 1, 0, 0xaa];
        for (frame, version) in [(&old[..], 8), (&new[..], 9)] {
            let (header, body) = RequestHeader::parse(frame).expect("well formed");
            let correlation_id = CorrelationId(5);
            assert_eq!(
                header,
                RequestHeader { key: ApiKey::Produce, version, correlation_id, client_id: "me" }
            );
            assert_eq!(body, [0xaa]);
            for end in 0..frame.len() - 1 {
                assert_eq!(
                    RequestHeader::parse(&frame[..end]),
                    Err(HeaderError::Malformed(DecodeError::Truncated))
                );
            }
        }
    }

    #[test]
    fn client_id_may_be_null_and_must_be_utf8() {
        let null = [0, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff];
        assert_eq!(RequestHeader::parse(&null).map(|(header, _)| header.client_id), Ok(""));
        let broken = [0, 18, 0, 0, 0, 0, 0, 5, 0, 1, 0xff];
        assert_eq!(RequestHeader::parse(&broken), Err(HeaderError::Malformed(DecodeError::NotUtf8)));
        let unknown = [0, 7, 0, 0, 0, 0, 0, 5, 0xff, 0xff];
        assert_eq!(RequestHeader::parse(&unknown), Err(HeaderError::UnknownApiKey(7)));
    }

    #[test]
    fn api_versions_answers_with_the_oldest_header() {
        for (key, version, expected) in [
            (ApiKey::ApiVersions, 4, &[0, 0, 0, 4, 0, 0, 0, 9][..]),
            (ApiKey::Produce, 8, &[0, 0, 0, 4, 0, 0, 0, 9]),
            (ApiKey::Produce, 9, &[0, 0, 0, 5, 0, 0, 0, 9, 0]),
        ] {
            let mut out = Vec::new();
            let at = begin_response(&mut out, key, version, CorrelationId(9));
            frame::end(&mut out, at, 0);
            assert_eq!(out, expected);
        }
    }
}
