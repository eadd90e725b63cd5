//! What the loader hands over: PVH's `hvm_start_info` (Xen's `arch-x86/hvm/start_info.h`), version 1.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::mm::{self, physical_slice, read_physical};

core::arch::global_asm!(include_str!("entry.s"));

const MAGIC: u32 = 0x336e_c578;

/// Physical address of the start info.
static START_INFO: AtomicU64 = AtomicU64::new(0);

/// Usable memory, in the memory map's words.
const RAM: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    start: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryMapEntry {
    start: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Notes where the start info lies.
///
/// # Panics
/// When it is none: the kernel was not started by PVH.
pub(crate) fn init(start_info: u64) {
    START_INFO.store(start_info, Ordering::Relaxed);
    let info = info();
    assert!(info.magic == MAGIC, "no PVH start info at {start_info:#x}");
    assert!(info.version >= 1 && info.memory_map_entries > 0, "the loader gave no memory map");
}

fn info() -> StartInfo {
    read_physical(START_INFO.load(Ordering::Relaxed))
}

/// The ranges of usable memory.
pub(crate) fn ram() -> impl Iterator<Item = Range> {
    let info = info();
    (0..u64::from(info.memory_map_entries))
        .map(move |i| read_physical::<MemoryMapEntry>(info.memory_map + i * size_of::<MemoryMapEntry>() as u64))
        .filter(|entry| entry.kind == RAM)
        .map(|entry| Range { start: entry.start, end: entry.start + entry.bytes })
}

/// The command line.
pub(crate) fn command_line() -> &'static str {
    let start = info().command_line;
    if start == 0 {
        return "";
    }
    let bytes = (0..4096).take_while(|i| read_physical::<u8>(start + i) != 0).count();
    core::str::from_utf8(physical_slice(start, bytes)).unwrap_or("")
}

/// Whether `word` stands on the command line.
pub(crate) fn has_word(word: &str) -> bool {
    command_line().split_ascii_whitespace().any(|w| w == word)
}

/// Where the first module (`-initrd`) lies.
pub(crate) fn module_range() -> Option<Range> {
    let info = info();
    if info.modules == 0 {
        return None;
    }
    let module: Module = read_physical(info.module_list);
    (module.bytes > 0).then_some(Range { start: module.start, end: module.start + module.bytes })
}

/// The first module's bytes; empty when there is none.
pub(crate) fn module() -> &'static [u8] {
    module_range().map_or(&[], |range| physical_slice(range.start, (range.end - range.start) as usize))
}

/// Physical address of ACPI's root pointer; 0 when the loader gave none.
pub(crate) fn rsdp() -> u64 {
    info().rsdp
}

/// Bytes of usable memory.
pub(crate) fn ram_bytes() -> u64 {
    ram().map(|range| range.end - range.start).sum()
}

/// All processors run: what was mapped only to get there goes.
pub(crate) fn finish() {
    mm::paging::trim_direct_map();
    mm::paging::drop_identity();
}
