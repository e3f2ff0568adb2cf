//! control: see ARCHITECTURE.md; written next.
