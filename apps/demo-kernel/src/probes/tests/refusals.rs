//! What is refused, and how that is said.
//!
//! After every refusal nothing is planted and a good definition still works: each test ends with [`still_works`], and
//! the runner compares the text.

mod lines;
mod places;
mod room;

use super::{Test, check, counts, define, remove, same};
use crate::arch::copy;
use crate::probes::with_control;
use alloc::format;
use alloc::string::{String, ToString};
use core::arch::global_asm;

pub(super) const TESTS: &[Test] = &[
    Test { name: "the code of kprobes itself", run: places::kprobes_itself },
    Test { name: "a slot", run: places::slot },
    Test { name: "a stub", run: places::stub },
    Test { name: "data, and memory that is not there", run: places::no_code },
    Test { name: "the middle of an instruction", run: places::middle },
    Test { name: "behind the end of a symbol", run: places::beyond },
    Test { name: "instructions that a kernel must not have probed", run: places::instructions },
    Test { name: "return probes begin at the entry", run: places::returns },
    Test { name: "a breakpoint that somebody else has planted", run: places::foreign_breakpoint },
    Test { name: "a breakpoint of somebody else's before the place", run: places::foreign_before },
    Test { name: "symbols that are unknown, ambiguous or no functions", run: lines::symbols },
    Test { name: "files and modules", run: lines::objects },
    Test { name: "events that exist, and events that do not", run: lines::events },
    Test { name: "wrong lines, with the column", run: lines::syntax },
    Test { name: "one bad line in a batch", run: lines::batch },
    Test { name: "garbage", run: lines::garbage },
    Test { name: "a hundredth of good lines is damaged", run: lines::damaged },
    Test { name: "more than 32 return probes at an address", run: room::return_probes },
    Test { name: "every probe of a long chain runs", run: room::long_chain },
    Test { name: "more probes than there is room for", run: room::full },
];

global_asm!(
    ".pushsection .text.refusals_target, \"ax\"",
    ".globl refusals_target",
    ".type refusals_target, @function",
    "refusals_target: lea rax, [rdi + 1]", // 4 bytes
    "imul eax, eax, 0x11111111",           // 6 bytes
    "add rax, rdi",                        // 3 bytes
    "ret",
    ".size refusals_target, . - refusals_target",
    ".popsection",
);

unsafe extern "C" {
    safe fn refusals_target(value: u64) -> u64;
}

const TARGET_BYTES: u64 = 14;

fn target() -> u64 {
    refusals_target as *const () as u64
}

/// A line that must be refused; gives what is said about it. The target's code is untouched, and nothing is listed.
fn refused(line: &str) -> Result<String, String> {
    let before = state()?;
    let said = match with_control(|c| c.line(line))? {
        Ok(done) => return Err(format!("`{line}` was taken: {done}")),
        Err(error) => error.to_string(),
    };
    same(&format!("what is planted after `{line}`"), state()?, before)?;
    Ok(said)
}

/// As [`refused`], with all of `parts` in what is said.
fn refused_with(line: &str, parts: &[&str]) -> Result<(), String> {
    let said = refused(line)?;
    for part in parts {
        check(said.contains(part), || format!("`{line}`: should say `{part}`: {said}"))?;
    }
    Ok(())
}

/// How many events there are, and the target's code.
fn state() -> Result<(usize, [u8; TARGET_BYTES as usize]), String> {
    let mut code = [0; TARGET_BYTES as usize];
    check(copy::read(target(), &mut code), || "the target cannot be read".into())?;
    Ok((with_control(|c| c.list().count())?, code))
}

fn still_works() -> Result<(), String> {
    with_control(|c| c.records())?;
    define(&["p:refusals_good refusals_target value=$arg1", "r:refusals_goods refusals_target result=$retval"])?;
    let result = refusals_target(0);
    let (hits, returned) = (counts("refusals_good")?.hits, counts("refusals_goods")?.returned);
    let records = with_control(|c| c.records())?.len();
    remove(&["refusals_good", "refusals_goods"])?;
    with_control(|c| c.records())?;
    same("result", result, 0x1111_1111)?;
    same("a good definition's hits, returns, records", (hits, returned, records), (1, 1, 2))
}
