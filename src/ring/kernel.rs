//! Kernel: the io_uring backend.
