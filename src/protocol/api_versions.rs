//! ApiVersions: what a client asks first. Key 18, versions 0 to 4.
//!
//! Versions:  v3 flexible, names the client's software (KIP-511), features (KIP-584); v4 allows features
//!            whose lowest level is 0 (KAFKA-17011).
//! Sources:   message schemas ApiVersionsRequest, ApiVersionsResponse.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::reader::{DecodeError, Reader};
use crate::protocol::writer::Writer;

pub const VERSION_MAX: i16 = 4;

/// First version with compact lengths, software names and features.
const FLEXIBLE_FROM: i16 = 3;

/// First version that may carry a supported feature whose lowest level is 0.
const LEVEL_ZERO_FROM: i16 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersionsRequest<'a> {
    /// Both empty below version 3.
    pub software_name: &'a str,
    pub software_version: &'a str,
}

impl<'a> ApiVersionsRequest<'a> {
    pub fn parse(version: i16, body: &'a [u8]) -> Result<Self, DecodeError> {
        if !(0..=VERSION_MAX).contains(&version) {
            return Err(DecodeError::Version);
        }
        let mut reader = Reader::new(body, version >= FLEXIBLE_FROM);
        let (software_name, software_version) =
            if version >= FLEXIBLE_FROM { (reader.string()?, reader.string()?) } else { ("", "") };
        reader.skip_tagged_fields()?;
        reader.finish()?;
        Ok(Self { software_name, software_version })
    }

    /// KIP-511: letters, digits, dots and hyphens, the first and the last a letter or a digit. Kafka
    /// answers anything else with `INVALID_REQUEST`. Meaningful from version 3.
    pub fn has_legal_software_names(&self) -> bool {
        is_legal_software_name(self.software_name) && is_legal_software_name(self.software_version)
    }
}

fn is_legal_software_name(name: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let [first, .., last] = name.as_bytes() else {
        return name.len() == 1 && name.as_bytes()[0].is_ascii_alphanumeric();
    };
    first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && name.as_bytes().iter().all(is_inner)
}

/// One served API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    pub key: i16,
    pub version_min: i16,
    pub version_max: i16,
}

/// Levels of a feature, lowest and highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRange<'a> {
    pub name: &'a str,
    pub level_min: i16,
    pub level_max: i16,
}

/// Features of the broker and of the cluster (KIP-584), sent from version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features<'a> {
    pub supported: &'a [FeatureRange<'a>],
    pub finalized: &'a [FeatureRange<'a>],
    /// -1 when unknown.
    pub finalized_epoch: i64,
}

/// Encodes the body of a response to a request of a served version.
pub fn encode_response(
    out: &mut Vec<u8>,
    version: i16,
    error: ErrorCode,
    ranges: &[ApiRange],
    throttle_ms: i32,
    features: Features<'_>,
) {
    let mut writer = Writer::new(out, version >= FLEXIBLE_FROM);
    encode_ranges(&mut writer, error, ranges);
    if version >= 1 {
        writer.i32(throttle_ms);
    }
    if version >= FLEXIBLE_FROM {
        encode_features(&mut writer, version, features);
    }
}

/// Encodes the answer to a version we don't know: version 0 with code 35 and our ranges, which every
/// client can read, and from which it chooses again (KIP-511).
pub fn encode_unsupported_version(out: &mut Vec<u8>, ranges: &[ApiRange]) {
    encode_ranges(&mut Writer::new(out, false), ErrorCode::UnsupportedVersion, ranges);
}

fn encode_ranges(writer: &mut Writer<'_>, error: ErrorCode, ranges: &[ApiRange]) {
    writer.i16(error.number());
    writer.array(ranges.len());
    for range in ranges {
        writer.i16(range.key);
        writer.i16(range.version_min);
        writer.i16(range.version_max);
        writer.no_tagged_fields();
    }
}

fn encode_features(writer: &mut Writer<'_>, version: i16, features: Features<'_>) {
    // Clients of version 3 refuse a lowest level of 0: such a feature is hidden from them.
    let shown = |range: &&FeatureRange<'_>| version >= LEVEL_ZERO_FROM || range.level_min > 0;
    let supported: Vec<_> = features.supported.iter().filter(shown).collect();
    let has_epoch = features.finalized_epoch != -1;
    let tags = [!supported.is_empty(), has_epoch, !features.finalized.is_empty()];
    writer.uvarint(tags.iter().filter(|present| **present).count() as u32);
    if !supported.is_empty() {
        encode_feature_tag(writer, 0, &supported, |range| (range.level_min, range.level_max));
    }
    if has_epoch {
        writer.tag(1, size_of::<i64>());
        writer.i64(features.finalized_epoch);
    }
    if !features.finalized.is_empty() {
        let finalized: Vec<_> = features.finalized.iter().collect();
        // The schema has the two levels the other way round here.
        encode_feature_tag(writer, 2, &finalized, |range| (range.level_max, range.level_min));
    }
}

fn encode_feature_tag(
    writer: &mut Writer<'_>,
    tag: u32,
    ranges: &[&FeatureRange<'_>],
    levels: impl Fn(&FeatureRange<'_>) -> (i16, i16),
) {
    let mut field = Vec::new();
    let mut inner = Writer::new(&mut field, true);
    inner.array(ranges.len());
    for range in ranges {
        inner.string(range.name);
        let (first, second) = levels(range);
        inner.i16(first);
        inner.i16(second);
        inner.no_tagged_fields();
    }
    writer.tag(tag, field.len());
    writer.raw(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: &[ApiRange] = &[ApiRange { key: 18, version_min: 0, version_max: 4 }];

    #[test]
    fn unknown_version_is_answered_in_version_zero() {
        let mut out = Vec::new();
        encode_unsupported_version(&mut out, RANGES);
        assert_eq!(out, [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    }

    #[test]
    fn software_names_are_names() {
        for (name, legal) in
            [("", false), ("a", true), ("apache-kafka-java", true), ("4.3.1", true), ("-a", false)]
                .into_iter()
                .chain([("a.", false), ("a b", false), ("é", false), ("a_b", false), (".", false)])
        {
            assert_eq!(is_legal_software_name(name), legal, "{name:?}");
        }
    }

    #[test]
    fn a_request_is_refused_at_every_other_length() {
        let body = [5, b'k', b'c', b'a', b't', 2, b'1', 0];
        let request = ApiVersionsRequest::parse(3, &body).expect("well formed");
        assert_eq!((request.software_name, request.software_version), ("kcat", "1"));
        for end in 0..body.len() {
            assert!(ApiVersionsRequest::parse(3, &body[..end]).is_err());
        }
        assert_eq!(ApiVersionsRequest::parse(0, &[]).map(|request| request.software_name), Ok(""));
        assert_eq!(ApiVersionsRequest::parse(0, &[0]), Err(DecodeError::Trailing));
        assert_eq!(ApiVersionsRequest::parse(5, &body), Err(DecodeError::Version));
        assert_eq!(ApiVersionsRequest::parse(-1, &body), Err(DecodeError::Version));
    }

    #[test]
    fn a_level_of_zero_is_hidden_from_version_three() {
        let features = Features {
            supported: &[FeatureRange { name: "f", level_min: 0, level_max: 1 }],
            finalized: &[],
            finalized_epoch: -1,
        };
        let mut old = Vec::new();
        encode_response(&mut old, 3, ErrorCode::None, RANGES, 0, features);
        assert_eq!(old, [0, 0, 2, 0, 18, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
        let mut new = Vec::new();
        encode_response(&mut new, 4, ErrorCode::None, RANGES, 0, features);
        assert_eq!(&new[14..], [1, 0, 8, 2, 2, b'f', 0, 0, 0, 1, 0]);
    }
}
