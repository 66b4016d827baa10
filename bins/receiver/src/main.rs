//! Thin.
fn main() {}
