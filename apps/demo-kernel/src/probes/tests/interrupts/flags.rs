//! The flags behind a probed instruction are those behind the instruction itself.

use super::super::{same, stepping};
use super::{STEPPINGS, bits, count, counted, entry, instruction, remove_all};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

type Function = extern "C" fn(u64) -> u64;

macro_rules! functions {
    ($($name:ident $symbol:ident),+ $(,)?) => {
        unsafe extern "C" {
            $(safe fn $symbol(flags: u64) -> u64;)+
        }
        /// By the probed instruction. Each sets the flags to its argument and gives those behind the instruction.
        const FUNCTIONS: &[(&str, Function)] = &[$((stringify!($name), $symbol)),+];
    };
}

functions! {
    nop interrupts_flags_nop,
    lea interrupts_flags_lea,
    push interrupts_flags_push,
    load interrupts_flags_load,
    jmp interrupts_flags_jmp,
    add interrupts_flags_add,
    adc interrupts_flags_adc,
    popfq interrupts_flags_popfq,
    pushfq interrupts_flags_pushfq,
    cli interrupts_flags_cli,
    sti interrupts_flags_sti,
    cld interrupts_flags_cld,
    std interrupts_flags_std,
}

/// Which instruction of each function is the probed one.
const PROBED: usize = 7;
const EACH: [u64; 9] =
    [bits::CF, bits::PF, bits::AF, bits::ZF, bits::SF, bits::OF, bits::DF, bits::IF, bits::AC | bits::ID | bits::NT];

/// All sets of the flags above.
fn patterns() -> impl Iterator<Item = u64> {
    let set = |number: u64| (0..EACH.len()).filter(move |bit| number >> bit & 1 != 0).map(|bit| EACH[bit]).sum();
    (0..1 << EACH.len()).map(set)
}

pub(super) fn same_to_the_bit() -> Result<(), String> {
    for (name, function) in FUNCTIONS {
        let plain: Vec<u64> = patterns().map(|flags| function(flags)).collect();
        let place = instruction(entry(*function), PROBED)?;
        for how in STEPPINGS {
            stepping(how, || count("flags", place))?;
            let mut cases = patterns().zip(&plain);
            cases
                .try_for_each(|(flags, plain)| {
                    same("behind it", function(flags), *plain).map_err(|why| format!("{flags:#x}: {why}"))
                })
                .and_then(|()| counted("flags", plain.len() as u64))
                .map_err(|why| format!("{name}, {how:?}: {why}"))?;
            remove_all()?;
        }
    }
    Ok(())
}
