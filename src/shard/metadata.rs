//! Metadata: a shard's image of the catalog and what it may give out of it.

use std::ops::Range;

use crate::api::Endpoint;
use crate::api::describe_configs::FixedSetting;
use crate::base::ids::ProducerId;
use crate::catalog::Catalog;
use crate::control::ControlHandle;

pub struct Metadata {
    pub catalog: Catalog,
    pub control: ControlHandle,
    /// By listener.
    pub endpoints: Vec<Endpoint>,
    pub fixed_settings: Vec<FixedSetting>,
    pub auto_create_topics: bool,
    pub offsets_partitions_count: i32,
    /// Durably reserved for this shard and not given out yet.
    producer_ids: Range<i64>,
}

impl Metadata {
    pub fn new(
        catalog: Catalog,
        control: ControlHandle,
        endpoints: Vec<Endpoint>,
        fixed_settings: Vec<FixedSetting>,
        auto_create_topics: bool,
        offsets_partitions_count: i32,
    ) -> Self {
        Self {
            catalog,
            control,
            endpoints,
            fixed_settings,
            auto_create_topics,
            offsets_partitions_count,
            producer_ids: 0..0,
        }
    }

    pub fn take_producer_id(&mut self) -> Option<ProducerId> {
        self.producer_ids.next().map(ProducerId)
    }

    /// Takes a block over and gives out its first id. What is left of a block before is forgotten:
    /// two requests may have asked at the same time, and ids are plenty.
    pub fn reserve_producer_ids(&mut self, first: i64, next: i64) -> ProducerId {
        assert!(first < next);
        if self.producer_ids.is_empty() {
            self.producer_ids = first + 1..next;
        }
        ProducerId(first)
    }
}
