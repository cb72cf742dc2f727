//! Jobs beside bare wasmtime.

fn main() {}
