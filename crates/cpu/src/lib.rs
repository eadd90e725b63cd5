//! The live processor, as trap context sees it.
//!
//! One folder for each `target_arch`, with the same files and the same names; the contract is this list, and callers
//! use only what is re-exported here:
//!
//! | Item | Meaning |
//! |---|---|
//! | [`syscall`] | a raw Linux system call: no libc, no `errno`, the kernel's own return value |
//! | [`nr`] | system call numbers that the agent uses |
//! | [`now`] | a time stamp counter and the processor it was read on |
//! | [`add_one`], [`replace`] | change a word without a lock, where only one thread does |
//! | [`SignalFrame`] | the interrupted registers, signal mask and signal stack in a signal handler |
//! | [`fs_base`] | what names the running thread, where it has thread-local variables |
//! | [`with_initial_vectors`] | calls a function that may use vector registers, for a program that is not to notice |
//! | [`thread_word`] | a word of the C library's thread control block |
//! | [`restorer`] | `rt_sigreturn`, for `SA_RESTORER` |
//! | [`Recovery`] | calls a function that may fault, and goes on behind it; needs no operating system |
//! | [`call_mirrored`] | calls a function as another one was called; needs none either |

#![cfg_attr(not(test), no_std)]

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
mod imp;

pub use imp::{
    Recovery, SignalFrame, add_one, call_mirrored, fs_base, now, nr, replace, restorer, syscall, thread_word,
    with_initial_vectors,
};
