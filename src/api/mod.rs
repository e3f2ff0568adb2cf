//! api: see ARCHITECTURE.md; written next.
