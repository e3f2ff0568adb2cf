//! Tests of the whole lane on the simulated disk.

mod damage;
mod harness;
mod kernel;
mod lane;
mod lookup;
mod lying_disk;
mod mutations;
mod power_cut;
mod seeds;
mod sparse;
mod stop;
