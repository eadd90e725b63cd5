//! End-to-end tests of the `kprobe` tool: programs of every kind run bare and probed.
//!
//! # What is compared
//!
//! Every program under `tests/programs` prints the same output in every run, and how often it called
//! each of its probed functions (`calls NAME=COUNT`). A test runs it bare, then probed, and demands the same
//! output, the same exit status, and hits that equal the program's own counts. The tool is only used through its
//! command line, but for the behaviour suite (`suite`).
//!
//! # Rules
//!
//! A test leaves nothing behind and depends on no other: programs run in process groups of their own, which are
//! killed when a time limit passes or a test fails. A missing compiler skips the tests that need it, with a line
//! `SKIPPED: why` on standard error. `cargo xtask setup` installs what is missing.

#![forbid(unsafe_code)]

mod attach;
mod bad_input;
mod boundaries;
mod children;
mod exact;
mod faults;
mod harness;
mod kinds;
mod libraries;
mod modules;
mod output;
mod patterns;
mod returns;
mod signals;
mod suite;
mod wx;
