//! LLVM's libunwind (`src/UnwindCursor.hpp`, `src/UnwindRegistersRestore.S`).
//!
//! Its context is a cursor: a pointer to its methods, a reference to the address space, then the
//! registers in the order `rax rbx rcx rdx rdi rsi rbp rsp`. So the handler's stack pointer is the
//! word at 0x10 + 7 * 8 = 0x48. Both numbers are read from code: the second from the assembly that
//! restores the registers, the same in all versions, the first from what calls it with the cursor's
//! registers.

use crate::object::Object;
use crate::runtime::find_all;

/// `mov 0x38(%rdi),%rax; sub $0x10,%rax; mov %rax,0x38(%rdi)`: the beginning of
/// `__libunwind_Registers_x86_64_jumpto`.
const RESTORE: [u8; 12] = [0x48, 0x8b, 0x47, 0x38, 0x48, 0x83, 0xe8, 0x10, 0x48, 0x89, 0x47, 0x38];
/// Where it finds the stack pointer.
const RSP_IN_REGISTERS: u32 = 0x38;
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Whether the function that restores the registers is here.
pub(super) fn restores_registers(object: &Object) -> bool {
    !restorers(object).is_empty()
}

/// The offset of the handler's stack pointer in the cursor, if all callers of the restoring
/// function agree.
pub(super) fn cfa_offset(object: &Object) -> Option<u32> {
    let [restore] = restorers(object)[..] else { return None };
    let sites = transfers_to(object, restore);
    let mut offsets: Vec<u8> =
        sites.iter().filter_map(|&site| added_to_rdi(object.code(site.checked_sub(4)?, 4)?)).collect();
    offsets.dedup();
    match offsets[..] {
        [registers] => Some(u32::from(registers) + RSP_IN_REGISTERS),
        _ => None,
    }
}

/// `add $n,%rdi` or `lea n(%reg),%rdi`: what puts the address of a cursor's registers into `rdi`.
fn added_to_rdi(bytes: &[u8]) -> Option<u8> {
    match *bytes {
        [0x48, 0x83, 0xc7, n] => Some(n),
        // ModRM: an 8-bit displacement, destination `rdi`, any base but the one that means another
        // byte follows.
        [0x48 | 0x49, 0x8d, modrm, n] if modrm & 0xf8 == 0x78 && modrm & 7 != 4 => Some(n),
        _ => None,
    }
}

fn restorers(object: &Object) -> Vec<u64> {
    let mut found = Vec::new();
    for range in object.image.code_ranges(false) {
        let Some(bytes) = object.image.mapped(range.start, range.end - range.start) else { continue };
        for at in find_all(bytes, &RESTORE) {
            let marked = bytes[..at].ends_with(&ENDBR64);
            found.push(range.start + at as u64 - if marked { 4 } else { 0 });
        }
    }
    found
}

/// Where `call` and `jmp` with a 32-bit displacement go to `target`.
pub(super) fn transfers_to(object: &Object, target: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for range in object.image.code_ranges(false) {
        let Some(bytes) = object.image.mapped(range.start, range.end - range.start) else { continue };
        for (at, window) in bytes.windows(5).enumerate() {
            if !matches!(window[0], 0xe8 | 0xe9) {
                continue;
            }
            let displacement = i32::from_le_bytes([window[1], window[2], window[3], window[4]]);
            let site = range.start + at as u64;
            if site.wrapping_add(5).wrapping_add_signed(i64::from(displacement)) == target {
                found.push(site);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::added_to_rdi;

    #[test]
    fn the_cursors_registers_are_found_in_both_forms() {
        assert_eq!(added_to_rdi(&[0x48, 0x83, 0xc7, 0x10]), Some(0x10)); // add $0x10,%rdi
        assert_eq!(added_to_rdi(&[0x48, 0x8d, 0x7d, 0x10]), Some(0x10)); // lea 0x10(%rbp),%rdi
        assert_eq!(added_to_rdi(&[0x49, 0x8d, 0x7e, 0x10]), Some(0x10)); // lea 0x10(%r14),%rdi
        assert_eq!(added_to_rdi(&[0x48, 0x8d, 0x75, 0x10]), None); // lea 0x10(%rbp),%rsi
    }
}
