//! The command line of sonomask.

fn main() {}
