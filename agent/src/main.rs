//! peerage
fn main() {}
