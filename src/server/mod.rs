//! server: see ARCHITECTURE.md; written next.
