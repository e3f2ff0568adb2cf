//! log: see ARCHITECTURE.md; written next.
