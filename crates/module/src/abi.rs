//! The host's functions, as [`kprobes::raw`] describes them.

use kprobes::raw::{Counts, Failure, Probe};

unsafe extern "C" {
    pub(crate) fn kprobes_register(probes: *const Probe, count: usize, ids: *mut u32, failure: *mut Failure) -> i32;
    pub(crate) fn kprobes_unregister(ids: *const u32, count: usize) -> i32;
    pub(crate) safe fn kprobes_enable(id: u32, on: u32) -> i32;
    pub(crate) fn kprobes_counts(id: u32, counts: *mut Counts) -> i32;
    pub(crate) fn kprobes_symbol(name: *const u8, length: usize) -> u64;
    pub(crate) fn kprobes_print(text: *const u8, length: usize);
    pub(crate) fn kprobes_read(address: u64, out: *mut u8, length: usize) -> i32;
    pub(crate) fn kprobes_read_string(address: u64, out: *mut u8, length: usize) -> isize;
    pub(crate) safe fn kprobes_thread() -> u64;
    pub(crate) safe fn kprobes_process() -> u64;
    pub(crate) safe fn kprobes_processor() -> u32;
    pub(crate) safe fn kprobes_now() -> u64;
    pub(crate) fn kprobes_comm(out: *mut [u8; 16]);
    pub(crate) fn kprobes_jprobe_return() -> !;
}
