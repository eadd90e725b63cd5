//! Reading and writing the target's memory from inside it, without ever faulting.
//!
//! `process_vm_readv` and `process_vm_writev` on oneself are always allowed (`ptrace_may_access` lets a process at its
//! own threads) and report a bad address as `EFAULT`. They cost about 1.5 µs; registers and constants need neither.

use cpu::{nr, syscall};

const PROCESS_VM_WRITEV: u64 = 311;
const ARCH_PRCTL: u64 = 158;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
const PAGE: u64 = 4096;

/// `struct iovec`.
type IoVec = [u64; 2];

/// Fills `out` from `address`; false when any of it cannot be read.
pub(crate) fn read(tid: u64, address: u64, out: &mut [u8]) -> bool {
    transfer(nr::PROCESS_VM_READV, tid, [out.as_mut_ptr() as u64, out.len() as u64], address) == out.len() as i64
}

/// A word at `address`.
pub(crate) fn read_word(tid: u64, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(tid, address, &mut bytes).then(|| u64::from_le_bytes(bytes))
}

/// Writes `bytes` to `address`; false when the program could not have written there itself.
pub(crate) fn write(tid: u64, address: u64, bytes: &[u8]) -> bool {
    transfer(PROCESS_VM_WRITEV, tid, [bytes.as_ptr() as u64, bytes.len() as u64], address) == bytes.len() as i64
}

fn transfer(number: u64, tid: u64, local: IoVec, address: u64) -> i64 {
    let remote: IoVec = [address, local[1]];
    // SAFETY: the local buffer is the caller's slice, which outlives the call and is exclusive when it is written; the
    // remote side is checked by the kernel. Writing the target's memory is what the program asked for in the system
    // call that is being carried out, and no Rust object of ours lies there.
    unsafe { syscall(number, [tid, (&raw const local) as u64, 1, (&raw const remote) as u64, 1, 0]) }
}

/// The program's memory, for an instruction that is executed in its place.
pub(crate) struct Careful;

impl isa::Memory for Careful {
    fn read(&mut self, addr: u64, width: isa::Width) -> Result<u64, isa::Fault> {
        let mut bytes = [0; 8];
        let wanted = bytes.get_mut(..width.bytes()).unwrap_or_default();
        let read = read(super::modules::thread(), addr, wanted);
        read.then(|| u64::from_le_bytes(bytes)).ok_or(isa::Fault { addr, write: false })
    }

    fn write(&mut self, addr: u64, width: isa::Width, value: u64) -> Result<(), isa::Fault> {
        let bytes = value.to_le_bytes();
        let wanted = bytes.get(..width.bytes()).unwrap_or_default();
        write(super::modules::thread(), addr, wanted).then_some(()).ok_or(isa::Fault { addr, write: true })
    }

    fn segment_base(&self, segment: isa::Segment) -> u64 {
        match segment {
            isa::Segment::Fs => thread_control_block(),
            isa::Segment::Gs => base(ARCH_GET_GS),
        }
    }
}

/// The fs base, which points at the running thread's control block (x86-64 ABI of thread-local storage); 0 when it
/// has none.
pub(crate) fn thread_control_block() -> u64 {
    base(ARCH_GET_FS)
}

/// The base of a segment.
fn base(which: u64) -> u64 {
    let mut base = 0u64;
    // SAFETY: both calls write one word to the address, which is that of a local variable.
    unsafe { syscall(ARCH_PRCTL, [which, (&raw mut base) as u64, 0, 0, 0, 0]) };
    base
}

/// Pages that one call of [`is_readable`] looks at.
const BATCH: usize = 32;

/// Whether every page from `low` to `high` can be read. Memory that was never touched is, with zeroes.
pub(crate) fn is_readable(tid: u64, low: u64, high: u64) -> bool {
    let mut page = low - low % PAGE;
    while page <= high {
        let rest = (high - page) / PAGE + 1;
        let count = rest.min(BATCH as u64);
        if !are_readable(tid, page, count as usize) {
            return false;
        }
        let Some(next) = page.checked_add(count * PAGE) else { return true };
        page = next;
    }
    true
}

/// Whether a byte of each of `count` pages, at most [`BATCH`], can be read.
fn are_readable(tid: u64, first: u64, count: usize) -> bool {
    let mut bytes = [0u8; BATCH];
    let mut remote: [IoVec; BATCH] = [[0, 1]; BATCH];
    for (i, part) in (0u64..).zip(&mut remote) {
        part[0] = first.wrapping_add(i * PAGE);
    }
    let local: IoVec = [bytes.as_mut_ptr() as u64, count as u64];
    let (from, to) = ((&raw const remote) as u64, (&raw const local) as u64);
    // SAFETY: both lists live on this stack until the call returns, `count` is at most their length, and the kernel
    // writes no more than `count` bytes of `bytes`; it checks the remote side.
    let read = unsafe { syscall(nr::PROCESS_VM_READV, [tid, to, 1, from, count as u64, 0]) };
    read == count as i64
}

/// Copies the string at `address`, up to its NUL or `out`'s end; the number of bytes, or `None` when it is not readable.
///
/// Reads up to the end of a page at a time: a string may end just before a page that is not mapped.
pub(crate) fn read_string(tid: u64, address: u64, out: &mut [u8]) -> Option<usize> {
    let mut done = 0;
    while done < out.len() {
        let at = address.checked_add(done as u64)?;
        let to_page_end = (PAGE - at % PAGE) as usize;
        let rest = out.get_mut(done..)?;
        let limit = rest.len().min(to_page_end).min(256);
        let chunk = rest.get_mut(..limit)?;
        if !read(tid, at, chunk) {
            return None;
        }
        if let Some(end) = chunk.iter().position(|&b| b == 0) {
            return Some(done + end);
        }
        done += limit;
    }
    Some(done)
}
