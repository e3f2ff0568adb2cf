//! metrics: see ARCHITECTURE.md; written next.
