//! ApiVersions, versions 0 to 4.

use crate::draw::{for_seeds, text, through_the_second_codec};
use bytes::BytesMut;
use corelane::protocol::api_versions::{self, ApiRange, ApiVersionsRequest, FeatureRange, Features};
use corelane::protocol::error_code::ErrorCode;
use kacrab_protocol::generated::api_versions_request::ApiVersionsRequestData;
use kacrab_protocol::generated::api_versions_response::*;

#[test]
fn requests_are_what_both_codecs_say() {
    for_seeds(40, |draw| {
        for version in 0..=api_versions::VERSION_MAX {
            let name = if version >= 3 { draw.text() } else { String::new() };
            let expected = ApiVersionsRequestData {
                client_software_name: text(&name),
                client_software_version: text(&name),
                _unknown_tagged_fields: draw.unknown_tags(version >= 3),
            };
            let mut bytes = BytesMut::new();
            expected.write(&mut bytes, version).expect("fits its version");
            type Second = kafka_protocol::messages::ApiVersionsRequest;
            assert_eq!(through_the_second_codec::<Second>(version, &bytes), bytes);
            let request = ApiVersionsRequest::parse(version, &bytes).expect("well formed");
            assert_eq!(request, ApiVersionsRequest { software_name: &name, software_version: &name });
        }
    });
}

#[test]
fn responses_are_what_both_codecs_write() {
    for_seeds(40, |draw| {
        for version in 0..=api_versions::VERSION_MAX {
            let ranges = draw.list(90, |draw| ApiRange {
                key: draw.i16(),
                version_min: draw.i16(),
                version_max: draw.i16(),
            });
            let mut names: Vec<String> =
                (0..draw.below(4)).map(|index| format!("{index}{}", draw.text())).collect();
            names.sort();
            let levels: Vec<_> = names
                .iter()
                .map(|name| FeatureRange { name, level_min: 1 + draw.below(9) as i16, level_max: draw.i16() })
                .collect();
            let features = Features {
                supported: &levels,
                finalized: &levels[..levels.len() / 2],
                finalized_epoch: draw.i64(),
            };
            let mut bytes = Vec::new();
            api_versions::encode_response(&mut bytes, version, ErrorCode::None, &ranges, 7, features);
            let is_flexible = version >= 3;
            let key = |range: &ApiRange| ApiVersion {
                api_key: range.key,
                min_version: range.version_min,
                max_version: range.version_max,
                ..Default::default()
            };
            let supported = |level: &FeatureRange<'_>| SupportedFeatureKey {
                name: text(level.name),
                min_version: level.level_min,
                max_version: level.level_max,
                ..Default::default()
            };
            let finalized = |level: &FeatureRange<'_>| FinalizedFeatureKey {
                name: text(level.name),
                min_version_level: level.level_min,
                max_version_level: level.level_max,
                ..Default::default()
            };
            let shown = |levels: &'_ [FeatureRange<'_>]| if is_flexible { levels.len() } else { 0 };
            let expected = ApiVersionsResponseData {
                api_keys: ranges.iter().map(key).collect(),
                throttle_time_ms: if version >= 1 { 7 } else { 0 },
                supported_features: levels[..shown(&levels)].iter().map(supported).collect(),
                finalized_features: features.finalized[..shown(features.finalized)]
                    .iter()
                    .map(finalized)
                    .collect(),
                finalized_features_epoch: if is_flexible { features.finalized_epoch } else { -1 },
                ..Default::default()
            };
            let mut written = BytesMut::new();
            expected.write(&mut written, version).expect("fits its version");
            assert_eq!(bytes, written, "version {version}");
            type Second = kafka_protocol::messages::ApiVersionsResponse;
            assert_eq!(through_the_second_codec::<Second>(version, &bytes), bytes, "version {version}");
        }
    });
}
