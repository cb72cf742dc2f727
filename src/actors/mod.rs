//! Actors: thin shells over the cores. They own state and I/O, and hold no policy.

pub mod identity;
