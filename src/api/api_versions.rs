//! ApiVersions. Key 18, versions 0 to 4.
//!
//! Behaviour: lists the table. A version we don't know is answered in version 0 with code 35.
//! Versions:  v3 client software name and version (KIP-511), features (KIP-584); v4 features whose
//!            lowest level is 0.
//! Deviations: transaction.version and share.version are not advertised, so clients take the paths
//!            without them; see COVERAGE.md.
//! Sources:   message schemas ApiVersionsRequest, ApiVersionsResponse; KIP-511; KIP-584.

use super::table;
use crate::protocol::api_versions::{
    ApiVersionsRequest, FeatureRange, Features, encode_response, encode_unsupported_version,
};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::reader::DecodeError;

/// `metadata.version` of Kafka 4.0 to 4.3 as levels: tools refuse brokers that finalise none.
const METADATA_VERSION: FeatureRange<'static> =
    FeatureRange { name: "metadata.version", level_min: 7, level_max: 30 };
const METADATA_VERSION_FINALIZED: FeatureRange<'static> =
    FeatureRange { name: "metadata.version", level_min: 30, level_max: 30 };

const SOFTWARE_NAMES_FROM: i16 = 3;

/// Appends the response's body; `epoch` is that of the catalog.
pub fn respond(version: i16, body: &[u8], epoch: u64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let request = ApiVersionsRequest::parse(version, body)?;
    let is_legal = version < SOFTWARE_NAMES_FROM || request.has_legal_software_names();
    let error = if is_legal { ErrorCode::None } else { ErrorCode::InvalidRequest };
    let ranges = if error.is_error() { Vec::new() } else { table::ranges() };
    let features = Features {
        supported: &[METADATA_VERSION],
        finalized: &[METADATA_VERSION_FINALIZED],
        finalized_epoch: epoch as i64,
    };
    encode_response(out, version, error, &ranges, 0, features);
    Ok(())
}

pub fn respond_unsupported(out: &mut Vec<u8>) {
    encode_unsupported_version(out, &table::ranges());
}
