//! partition: see ARCHITECTURE.md; written next.
