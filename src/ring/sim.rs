//! Sim: the simulated twin.
