//! coordinator: see ARCHITECTURE.md; written next.
