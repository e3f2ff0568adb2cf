//! console: see ARCHITECTURE.md; written next.
