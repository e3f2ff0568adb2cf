//! DescribeCluster. Key 60, versions 0 to 2.
//!
//! Behaviour: cluster id, controller and brokers.
//! Versions:  v1 endpoint type (KIP-919); v2 fenced brokers (KIP-1073).
//! Deviations: endpoint type 2 (controllers) is refused with 115: this listener serves brokers only.
//! Sources:   message schemas DescribeClusterRequest, DescribeClusterResponse; KIP-700.

use super::{CLUSTER_OPERATIONS, Context};
use crate::protocol::cold::describe_cluster_request::DescribeClusterRequestData;
use crate::protocol::cold::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponseData};
use crate::protocol::cold::text;
use crate::protocol::error_code::ErrorCode;

const BROKERS: i8 = 1;

pub fn respond(request: &DescribeClusterRequestData, context: &Context<'_>) -> DescribeClusterResponseData {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponseData {
            error_code: ErrorCode::MismatchedEndpointType.number(),
            error_message: Some(text("The request was sent to an endpoint of type BROKERS.")),
            ..Default::default()
        };
    }
    let mut response = DescribeClusterResponseData {
        endpoint_type: BROKERS,
        cluster_id: text(&context.catalog.cluster_id),
        controller_id: context.node().0,
        brokers: vec![DescribeClusterBroker {
            broker_id: context.node().0,
            host: text(&context.endpoint.host),
            port: i32::from(context.endpoint.port),
            ..Default::default()
        }],
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}
