//! Memory: guarded accesses, demand-zero memory, text and executable memory, W^X.

use super::{Check, ensure};
use crate::arch::copy;
use crate::mm::{self, alias, exec, lazy};

pub(super) const CHECKS: &[Check] = &[
    ("guarded reads", guarded_reads),
    ("guarded writes", guarded_writes),
    ("demand-zero memory", demand_zero),
    ("demand-zero memory is given back and begins anew", demand_zero_again),
    ("guarded reads do not touch demand-zero memory into being", guarded_reads_do_not_demand),
    ("executable memory", executable_memory),
    ("only text is written through the alias", alias_refuses),
    ("text across two pages is written", alias_crosses_pages),
    ("no page is writable and executable", audit),
    ("a writable alias of text would be noticed", audit_notices),
];

const UNMAPPED: u64 = 0xffff_b000_0000_0000;
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;

fn guarded_reads() -> Result<(), &'static str> {
    let value = 0x0123_4567_89ab_cdef_u64;
    let address = &raw const value as u64;
    let mut bytes = [0; 8];
    ensure(copy::read(address, &mut bytes) && u64::from_le_bytes(bytes) == value, "bytes are read wrong")?;
    ensure(copy::read_u64(address) == Some(value), "a word is read wrong")?;
    ensure(copy::read_u64(UNMAPPED).is_none(), "a word where nothing is")?;
    ensure(!copy::read(UNMAPPED, &mut bytes), "bytes where nothing is")?;
    ensure(copy::read_u64(NON_CANONICAL).is_none(), "a word at a non-canonical address")?;
    ensure(!copy::read(NON_CANONICAL, &mut bytes), "bytes at a non-canonical address")?;
    ensure(copy::read(UNMAPPED, &mut []), "nothing can always be read")
}

fn guarded_writes() -> Result<(), &'static str> {
    let mut value = 1_u64;
    let text = alias::text().start;
    let before = copy::read_u64(text);
    // SAFETY: the first word is ours, at the others no write succeeds.
    let done = unsafe {
        let ours = copy::write_u64(&raw mut value as u64, 2);
        ours && !copy::write_u64(UNMAPPED, 2) && !copy::write_u64(NON_CANONICAL, 2) && !copy::write_u64(text, 2)
    };
    ensure(done && value == 2, "a write succeeded or failed wrongly")?;
    ensure(copy::read_u64(text) == before, "text was written")
}

fn demand_zero() -> Result<(), &'static str> {
    const BYTES: u64 = 16 * mm::PAGE;
    let start = lazy::reserve(BYTES);
    ensure(mm::paging::translate(start).is_none(), "there before it was touched")?;
    for offset in (0..BYTES).step_by(mm::PAGE as usize) {
        let word = (start + offset) as *mut u64;
        // SAFETY: the region was just reserved for us.
        let zero = unsafe {
            let zero = word.read_volatile() == 0;
            word.write_volatile(offset);
            zero && word.read_volatile() == offset
        };
        ensure(zero, "it does not begin as zeros or does not keep what is written")?;
    }
    ensure(!copy::read(start + BYTES, &mut [0]), "there is something behind it")
}

fn demand_zero_again() -> Result<(), &'static str> {
    const BYTES: u64 = 4 * mm::PAGE;
    let start = lazy::reserve(BYTES);
    let word = (start + mm::PAGE) as *mut u64;
    // SAFETY: the region was just reserved for us.
    unsafe { word.write_volatile(1) };
    let frames = mm::frames::in_use();
    // SAFETY: nobody else knows the region.
    unsafe { lazy::release(start, BYTES) };
    ensure(mm::frames::in_use() + 1 == frames, "not one frame came back")?;
    // SAFETY: it is still reserved for us.
    ensure(unsafe { word.read_volatile() } == 0, "it does not begin as zeros again")
}

fn guarded_reads_do_not_demand() -> Result<(), &'static str> {
    let start = lazy::reserve(mm::PAGE);
    ensure(copy::read_u64(start).is_none(), "it was read")?;
    ensure(mm::paging::translate(start).is_none(), "it was backed")
}

fn executable_memory() -> Result<(), &'static str> {
    let address = exec::alloc(100);
    let reach = address.abs_diff(alias::text().start) < 1 << 30;
    ensure(reach, "it is out of the text's reach")?;
    // mov eax, 42; ret
    ensure(alias::write(address, &[0xb8, 42, 0, 0, 0, 0xc3]).is_ok(), "it cannot be written")?;
    // SAFETY: the function just written.
    let function = unsafe { core::mem::transmute::<u64, extern "C" fn() -> u32>(address) };
    ensure(function() == 42, "it does something else")?;
    // 43 instead, while the function is warm.
    ensure(alias::write(address + 1, &[43]).is_ok() && function() == 43, "a change is not seen")
}

fn alias_refuses() -> Result<(), &'static str> {
    static DATA: u64 = 0;
    let end = alias::text().end;
    let at = |address| Err(alias::Error::NotText { address });
    let data = &raw const DATA as u64;
    ensure(alias::write(data, &[1]) == at(data), "data")?;
    ensure(alias::write(UNMAPPED, &[1]) == at(UNMAPPED), "nothing")?;
    ensure(alias::write(u64::MAX, &[1, 2]).is_err(), "the end of the address space")?;
    ensure(alias::write(end - 1, &[1, 2]).is_err(), "behind the text")
}

fn alias_crosses_pages() -> Result<(), &'static str> {
    let start = exec::alloc(2 * mm::PAGE as usize);
    let bytes: [u8; 32] = core::array::from_fn(|i| i as u8 + 1);
    let at = start + mm::PAGE - 13;
    ensure(alias::write(at, &bytes).is_ok(), "it cannot be written")?;
    let mut back = [0; 34];
    ensure(copy::read(at - 1, &mut back), "it cannot be read")?;
    ensure(back[1..33] == bytes && back[0] == 0xcc && back[33] == 0xcc, "other bytes were written")
}

fn audit() -> Result<(), &'static str> {
    let audit = mm::audit();
    ensure(audit.writable_and_executable == 0, "a page is both")?;
    ensure(audit.writable_aliases_of_executable == 0, "executable memory has a writable alias")?;
    // The image's text and what the checks above have allocated.
    let least = (alias::text().end - alias::text().start) / mm::PAGE + 3;
    ensure(audit.executable >= least && audit.pages > audit.executable, "pages are missing in the walk")
}

fn audit_notices() -> Result<(), &'static str> {
    let found = alias::during_write(alias::text().start, mm::audit);
    ensure(found.is_ok_and(|audit| audit.writable_aliases_of_executable == 1), "it was not")?;
    ensure(mm::audit().writable_aliases_of_executable == 0, "it is still there")
}
