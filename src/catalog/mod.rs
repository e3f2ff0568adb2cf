//! catalog: see ARCHITECTURE.md; written next.
