//! Which instruction somebody died at, and what was blocked then.
//!
//! A program that runs in a folder of ours leaves a core dump there, without memory (`coredump_filter` is 0): its first
//! note is the thread that died. Where dumps go elsewhere, the kernel's log says less, and nothing when it is flooded.

use std::path::Path;
use std::process::Command;

use symbols::Object;

/// How many lines of the log are shown.
const SHOWN: usize = 2;

/// Lets programs leave dumps, without memory, from now on; whether that could be had is not important.
pub(crate) fn prepare() {
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// What is known of the death of a program that ran in `folder`; `maps` is what was mapped in it, `since` when it began
/// in the kernel's time.
pub(crate) fn obituary(folder: &Path, name: &str, maps: &str, since: f64) -> String {
    dump(folder, maps).unwrap_or_else(|| log(name, maps, since))
}

/// Seconds since the machine was started.
pub(crate) fn now() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..N].copy_from_slice(bytes.get(at..at + N)?);
    Some(u64::from_le_bytes(word))
}

/// The newest dump in the folder, which is then gone.
fn dump(folder: &Path, maps: &str) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let is_core = |name: &str| name == "core" || name.starts_with("core.");
    let entry = entries.into_iter().find(|entry| is_core(&entry.file_name().to_string_lossy()))?;
    let bytes = std::fs::read(entry.path()).ok()?;
    let _ = std::fs::remove_file(entry.path());
    let status = first_note(&bytes)?;
    // `struct elf_prstatus`: the signal, those that wait, those that are blocked, the thread, its registers.
    let signal = word::<2>(status, 12)?;
    let (pending, blocked, thread) = (word::<8>(status, 16)?, word::<8>(status, 24)?, word::<4>(status, 32)?);
    let (rip, rsp) = (word::<8>(status, 112 + 16 * 8)?, word::<8>(status, 112 + 19 * 8)?);
    Some(format!(
        "\n  its dump: thread {thread}, signal {signal}, at {rip:#x}, stack {rsp:#x}, pending {pending:#x}, blocked \
         {blocked:#x}{}{}\n   {}",
        forced(signal, blocked),
        at_address(rip.wrapping_sub(u64::from(signal == 5)), maps),
        REGISTERS
            .iter()
            .enumerate()
            .map(|(n, name)| format!(" {name}={:#x}", word::<8>(status, 112 + n * 8).unwrap_or(0)))
            .collect::<String>()
    ))
}

/// The kernel unblocks a signal that it forces on a thread, which then has no handler any more. So a breakpoint that
/// killed in spite of our handler shows as a mask in which hardly anything but its signal is missing.
fn forced(signal: u64, blocked: u64) -> &'static str {
    if signal == 5 && blocked & 1 << 4 == 0 && blocked.count_ones() > 32 {
        " (all but SIGTRAP: it was blocked too, and the kernel has forced it; or the thread ran for the tool, and nobody \
         handled SIGTRAP)"
    } else {
        ""
    }
}

/// As `struct user_regs_struct` has them.
const REGISTERS: [&str; 16] =
    ["r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax"];

/// The first note of a dump: the thread that died (`NT_PRSTATUS`).
fn first_note(bytes: &[u8]) -> Option<&[u8]> {
    let (table, size, count) = (word::<8>(bytes, 32)?, word::<2>(bytes, 54)?, word::<2>(bytes, 56)?);
    let headers = (0..count).map(|n| (table + n * size) as usize);
    let notes = headers.into_iter().find(|at| word::<4>(bytes, *at) == Some(4))?;
    let at = word::<8>(bytes, notes + 8)? as usize;
    let (name, length, kind) = (word::<4>(bytes, at)?, word::<4>(bytes, at + 4)?, word::<4>(bytes, at + 8)?);
    let start = at + 12 + (name as usize).next_multiple_of(4);
    (kind == 1).then(|| bytes.get(start..start + length as usize))?
}

/// What is at an address, by what was mapped.
fn at_address(address: u64, maps: &str) -> String {
    let found = || {
        let line = maps.lines().find(|line| range(line).is_some_and(|range| range.contains(&address)))?;
        let mut fields = line.split_ascii_whitespace();
        let offset = u64::from_str_radix(fields.nth(2)?, 16).ok()?;
        let Some(path) = fields.nth(2) else { return Some(format!("\n    that is in {line}")) };
        let described = || {
            let object = Object::read(Path::new(path)).ok()?;
            let vaddr = object.vaddr_of_offset(offset + address - range(line)?.start)?;
            instruction(&object, vaddr)
        };
        Some(format!("\n    that is {path}: {}", described().unwrap_or_else(|| line.to_owned())))
    };
    found().unwrap_or_else(|| "\n    that is in nothing that was mapped when it was last looked at".into())
}

fn range(line: &str) -> Option<std::ops::Range<u64>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

fn instruction(object: &Object, vaddr: u64) -> Option<String> {
    let function = object.function_at(vaddr)?;
    let code = (1..=15).rev().find_map(|length| object.code(vaddr, length));
    let text = code.and_then(|code| isa::x86::disassemble(code, vaddr)).unwrap_or_default();
    Some(format!("{}+{:#x} ({vaddr:#x}): {text}", function.demangled(), vaddr - function.addr))
}

/// The kernel's last lines on a program of that name.
fn log(name: &str, maps: &str, since: f64) -> String {
    let Ok(log) = Command::new("dmesg").output() else { return String::new() };
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    // The kernel cuts names.
    let mine = format!("{}[", name.chars().take(15).collect::<String>());
    let time = |line: &str| line.trim_start_matches(['[', ' ']).split(']').next()?.parse::<f64>().ok();
    let is_new = |line: &&str| line.contains(&mine) && time(line).is_none_or(|time| time >= since);
    let lines: Vec<_> = log.lines().filter(is_new).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(SHOWN));
    last.map(|line| format!("\n  kernel: {line}{}", in_log(line, maps))).collect()
}

/// `… in FILE[OFFSET,START+SIZE]`: the function and the instruction there.
fn in_log(line: &str, maps: &str) -> String {
    let found = || {
        let (_, rest) = line.split_once(" in ")?;
        let (file, rest) = rest.split_once('[')?;
        let mut offset = u64::from_str_radix(rest.split([',', ']']).next()?, 16).ok()?;
        // The trap is told at the byte behind the breakpoint.
        offset -= u64::from(line.contains("int3"));
        let mut paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
        let path = paths.find(|path| path.rsplit('/').next() == Some(file))?;
        instruction(&Object::read(Path::new(path)).ok()?, offset)
    };
    found().map(|text| format!("\n    that is {text}")).unwrap_or_default()
}
