//! net: see ARCHITECTURE.md; written next.
