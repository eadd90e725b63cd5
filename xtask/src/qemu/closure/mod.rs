//! Does all that a trap runs lie in `.kprobes.text`?
//!
//! A probe on a function that the trap's handling itself calls, before it knows that it is in a trap already, would
//! trap for ever. Such functions therefore lie in a section of their own, where no probe is planted. The linker script
//! puts them there by name; what a change or another compiler calls from there as well, nobody remembers to add. So
//! the kernel is disassembled and everything that the trap stubs reach by direct calls and jumps is looked at.
//!
//! Calls through registers and memory that is written at run time cannot be followed. They are listed, to be judged by
//! a reader: a pointer to a function that is not guarded must not be called before the guard.

mod code;
mod walk;

use anyhow::{Context, Result, bail};

use self::code::Code;
use self::walk::{Outcome, walk};
use super::Kernel;
use super::symbols::parse;

/// Where traps enter that are handled by kprobes,.
const ROOTS: &[&str] = &["trap_breakpoint", "trap_debug", "trap_fault"];
/// What runs only after the processor is marked as being in a trap, or after kprobes has said that the trap is not its
/// own: a probe in there is an ordinary one, or a nested one, which is counted and stepped over. Neither these nor what
/// they call must be in the section.
const BEHIND_THE_GUARD: &[&str] = &["demo_kernel::arch::trap::unclaimed", "demo_kernel::arch::trap::fault"];
/// The section's borders, from the linker script.
const BORDERS: (&str, &str) = ("__kprobes_text_start", "__kprobes_text_end");

/// Checks a kernel.
///
/// # Errors
///
/// If something that is reached lies outside, or a name of the lists or the section is not in the kernel.
pub(super) fn run(kernel: &Kernel) -> Result<()> {
    let path = kernel.image();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let code = Code::read(&parse(&bytes)?)?;
    let borders = code.address(BORDERS.0)?..code.address(BORDERS.1)?;
    let addresses = |names: &[&str]| names.iter().map(|name| code.address(name)).collect::<Result<Vec<_>>>();
    let (roots, guarded) = (addresses(ROOTS)?, addresses(BEHIND_THE_GUARD)?);
    let outcome = walk(&roots, &guarded, |function| borders.contains(&function), |function| code.calls(function));
    report(&code, &outcome)
}

fn report(code: &Code, outcome: &Outcome) -> Result<()> {
    for (function, at) in &outcome.unknown {
        println!("closure: not followed: {} at {at:#x} calls or jumps through a pointer", code.name(*function));
    }
    for chain in &outcome.outside {
        let names: Vec<_> = chain.iter().map(|function| code.name(*function)).collect();
        println!("closure: outside .kprobes.text: {}", names.join(" → "));
    }
    if !outcome.outside.is_empty() {
        bail!("{} functions that a trap runs lie outside .kprobes.text", outcome.outside.len());
    }
    println!("closure: {} functions reached from {}, all in .kprobes.text", outcome.reached, ROOTS.join(", "));
    Ok(())
}
