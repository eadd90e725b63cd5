//! Tests of those parts of the demo kernel that need no kernel, on the host.
//!
//! The kernel is built for a bare machine and cannot be a test program; its pure parts are compiled a second time here.

mod fs;
mod ksyms;
