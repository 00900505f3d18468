//! The package on real hosts, under systemd: what its administrator does, and what happens to
//! hosts. Where hosts cannot be booted each test says so.

mod coming_back;
mod disk;
mod installing;
mod package;
mod supervision;
mod terminal;
mod unit;
mod writer;
