//! Tuning: what the machine is and how it is set, beside what a broker wants of it.
//!
//! Owns:     the knobs of `tuning/`, embedded in the binary, and the folder of what was there before them.
//! Promises: `check` changes nothing, but for a file in the log directory that it removes again; what `apply`
//!           changed is put back exactly by `revert`.
//! Never:    runs beside a shard: these are commands of their own. Nothing else imports it.
//! Called by the binary.
//!
//! No other module can own it: `server` starts without looking at the machine's settings, and runs no programs.

pub mod check;
pub mod check_text;
pub mod flush;
pub mod knob;
pub mod tune;
