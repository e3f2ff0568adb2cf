//! shard: see ARCHITECTURE.md; written next.
