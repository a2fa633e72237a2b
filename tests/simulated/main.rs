//! The simulated disk: what it does, what its faults do and do not touch, and that it can be repeated.

/// The disk as a program sees it.
mod disk;
