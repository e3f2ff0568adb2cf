//! Tests of the whole lane on the simulated disk.

mod harness;
mod kernel;
mod lane;
mod power_cut;
