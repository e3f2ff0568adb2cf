//! Base: the words every module speaks. Ids, units, checksum, seeded randomness, slabs.
//!
//! Owns:     the newtypes that keep two integers from being exchanged by mistake.
//! Promises: nothing here touches the kernel, the clock or randomness of the machine.
//! Never:    knows Kafka's messages, files or sockets.

pub mod checksum;
pub mod copy;
pub mod ids;
pub mod queue;
pub mod random;
pub mod slab;
