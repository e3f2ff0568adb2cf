//! Wire: what is read and written here is what two independent codecs write and read, version by version.
//!
//! Every test draws from a seeded generator and prints the seed with its failure; `CORELANE_SEED` replays one.

mod api_versions;
mod batches;
mod draw;
mod fetch;
mod hostile;
mod produce;
