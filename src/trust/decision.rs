//! The access decision: one place, deny by default.
