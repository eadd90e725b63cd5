//! GCC's unwinder (`libgcc/unwind.inc`, `unwind-dw2.c`).
//!
//! Its context begins with 18 register pointers; then come `cfa` (0x90) and `ra` (0x98).
//! `_Unwind_SetIP(context, ip)` is `context->ra = ip`.
//!
//! Without symbols: `RaiseException`, `ForcedUnwind`, `Resume` and `Resume_or_Rethrow` end in
//! `__builtin_eh_return`, for which GCC saves `rax` and `rdx` and says so in the unwind table;
//! nobody else saves these two alone. Which is which: `Resume_or_Rethrow` calls `RaiseException`,
//! `ForcedUnwind` stores its arguments in the exception (+0x10, +0x18), `Resume` does not.
//! `Backtrace` ends in an ordinary return, so it has no mark of its own, but all five begin with
//! `uw_init_context_1`, which nobody else calls.

use super::{Flavor, Unwinder, UnwinderStatus};
use crate::frames::Frame;
use crate::object::Object;
use crate::runtime::find_all;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `mov %rsi,0x98(%rdi); ret`.
const SET_IP: [u8; 8] = [0x48, 0x89, 0xb7, 0x98, 0, 0, 0, 0xc3];
/// `cfa` stands right before `ra`.
const CFA_BEFORE_RA: u32 = 8;
/// No function of the unwinder is longer.
const LONGEST: u64 = 16 << 10;

/// The context's offset of the frame address, if the function at `set_ip` is libgcc's;
/// `_Unwind_GetCFA`, where it is there, must agree.
pub(super) fn cfa_offset(object: &Object, set_ip: u64) -> Option<u32> {
    let ra = accessor(object, set_ip, Code::Mov_rm64_r64)?;
    let cfa = ra.checked_sub(CFA_BEFORE_RA)?;
    let getters = object.functions_named("_Unwind_GetCFA");
    getters.iter().all(|f| accessor(object, f.addr, Code::Mov_r64_rm64) == Some(cfa)).then_some(cfa)
}

/// The displacement in a function that is one move to or from `[rdi + displacement]` and a return.
fn accessor(object: &Object, addr: u64, code: Code) -> Option<u32> {
    let bytes = object.code(addr, 12).or_else(|| object.code(addr, 8))?;
    let bytes = bytes.strip_prefix(&ENDBR64).unwrap_or(bytes);
    let mut decoder = Decoder::with_ip(64, bytes, addr, DecoderOptions::NONE);
    let (store, end) = (decoder.decode(), decoder.decode());
    let plain = store.memory_base() == Register::RDI && store.memory_index() == Register::None;
    let right = store.code() == code && plain && end.mnemonic() == Mnemonic::Ret;
    let displacement = u32::try_from(store.memory_displacement64()).ok()?;
    // Eighteen registers at least come first; a store anywhere else is somebody else's function.
    (right && (0x90..0x400).contains(&displacement)).then_some(displacement)
}

/// Finds a stripped libgcc by its marks; none if there is no mark at all.
pub(super) fn by_marks(object: &Object) -> Option<UnwinderStatus> {
    let entries: Vec<Frame> =
        object.frames().entries.iter().filter(|f| f.is_eh_return && f.is_entry).copied().collect();
    if entries.is_empty() {
        return None;
    }
    let [set_ip] = set_ips(object)[..] else {
        let why =
            "functions that end in __builtin_eh_return are inside, but not exactly one _Unwind_SetIP as libgcc has it";
        return Some(UnwinderStatus::Unidentifiable { why: why.to_owned() });
    };
    let mut found = Unwinder {
        set_ip: Some(set_ip),
        set_ip_cfa_offset: cfa_offset(object, set_ip),
        backtrace: backtrace(object, &entries),
        ..Unwinder::new(Flavor::Libgcc)
    };
    classify(object, &entries, &mut found);
    Some(UnwinderStatus::Identified(found))
}

fn set_ips(object: &Object) -> Vec<u64> {
    let mut found = Vec::new();
    for range in object.image.code_ranges(false) {
        let Some(bytes) = object.image.mapped(range.start, range.end - range.start) else { continue };
        for at in find_all(bytes, &SET_IP) {
            let marked = bytes[..at].ends_with(&ENDBR64);
            found.push(range.start + at as u64 - if marked { 4 } else { 0 });
        }
    }
    found
}

fn classify(object: &Object, entries: &[Frame], found: &mut Unwinder) {
    let is_entry = |addr: u64| entries.iter().any(|e| e.start == addr);
    for entry in entries {
        let raises: Vec<u64> = calls(object, entry).into_iter().filter(|&t| is_entry(t)).collect();
        if let [raise] = raises[..] {
            found.resume_or_rethrow.push(entry.start);
            found.raise.push(raise);
        }
    }
    found.raise.sort_unstable();
    found.raise.dedup();
    for entry in entries {
        if found.raise.contains(&entry.start) || found.resume_or_rethrow.contains(&entry.start) {
            continue;
        }
        // What is raised is known, so of the rest only `ForcedUnwind` writes into the exception.
        let list = match (found.raise.is_empty(), stores_arguments(object, entry)) {
            (true, _) => &mut found.unclassified,
            (false, true) => &mut found.forced,
            (false, false) => &mut found.resume,
        };
        list.push(entry.start);
    }
}

/// The one function besides the entries that calls a function which all of them call.
fn backtrace(object: &Object, entries: &[Frame]) -> Option<u64> {
    let mut common = calls(object, entries.first()?);
    for entry in &entries[1..] {
        let targets = calls(object, entry);
        common.retain(|t| targets.contains(t));
    }
    common.sort_unstable();
    common.dedup();
    let mut candidates: Vec<u64> =
        common.iter().filter_map(|&target| only_other_caller(object, entries, target)).collect();
    candidates.sort_unstable();
    candidates.dedup();
    match candidates[..] {
        [one] => Some(one),
        _ => None,
    }
}

fn only_other_caller(object: &Object, entries: &[Frame], target: u64) -> Option<u64> {
    let mut callers = Vec::new();
    for site in super::llvm::transfers_to(object, target) {
        let frame = object.frames().at(site)?;
        if frame.is_entry && !entries.contains(frame) && !callers.contains(&frame.start) {
            callers.push(frame.start);
        }
    }
    match callers[..] {
        [one] => Some(one),
        _ => None,
    }
}

fn instructions<'a>(object: &'a Object, frame: &Frame) -> impl Iterator<Item = Instruction> + 'a {
    let len = (frame.end - frame.start).min(LONGEST);
    let bytes = object.image.mapped(frame.start, len).unwrap_or(&[]);
    Decoder::with_ip(64, bytes, frame.start, DecoderOptions::NONE).into_iter()
}

fn calls(object: &Object, frame: &Frame) -> Vec<u64> {
    let calls = instructions(object, frame).filter(|i| i.flow_control() == FlowControl::Call);
    calls.map(|i| i.near_branch_target()).collect()
}

/// Whether registers are stored at +0x10 and +0x18 of something that is not the stack.
fn stores_arguments(object: &Object, frame: &Frame) -> bool {
    let stores_at = |displacement: u64| {
        instructions(object, frame).any(|i| {
            i.code() == Code::Mov_rm64_r64
                && i.op0_kind() == OpKind::Memory
                && i.memory_displacement64() == displacement
                && !matches!(i.memory_base(), Register::RSP | Register::RBP)
        })
    };
    stores_at(0x10) && stores_at(0x18)
}
