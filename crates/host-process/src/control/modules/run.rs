//! A held thread runs `init` or `exit` of a module, and what these ask for is done.

use super::{service, table};
use crate::abi::modules::Modules;
use crate::abi::{Home, STUB_BYTES};
use crate::control::Result;
use crate::control::inject::map;
use crate::control::member::Member;
use crate::control::ptrace::Registers;
use crate::control::stop::Pause;
use core::mem::offset_of;
use std::time::{Duration, Instant};

/// How long a function of a module may run, apart from what the tool does for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The stack that it runs on.
const STACK_BYTES: u64 = 256 << 10;
/// Below the stack nothing can be touched.
const GUARD_BYTES: u64 = 0x1000;
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;

/// How a function has ended: what it returned, or why it did not.
pub(super) type Ended = core::result::Result<u64, String>;

/// Runs a function of module `number`, on the thread that the target's remote holds.
pub(super) fn run(member: &mut Member, number: u32, function: u64) -> Result<Ended> {
    let home = member.target.agent.home;
    let running = table::field(home, offset_of!(Modules, running));
    let entry = member.target.memory().word(table::field(home, offset_of!(Modules, run)))?;
    let stack = member.target.with_remote(|remote| map_stack(remote))?;
    member.target.memory().write(running, &(number + 1).to_le_bytes())?;
    member.target.held()?.begin(entry, function, stack + STACK_BYTES - 16)?;
    let ended = follow(member, number);
    // Also when the function has not ended: the thread will not go on with it.
    member.target.memory().write(running, &[0; 4])?;
    member.target.with_remote(|remote| remote.call("munmap", libc::SYS_munmap, [stack, STACK_BYTES, 0, 0, 0, 0]))?;
    ended
}

fn map_stack(remote: &mut dyn crate::control::stop::Remote) -> Result<u64> {
    let stack = map(remote, 0, STACK_BYTES, READ_WRITE, 0)?;
    remote.call("mprotect", libc::SYS_mprotect, [stack, GUARD_BYTES, 0, 0, 0, 0])?;
    Ok(stack)
}

/// Lets the thread run until the function has ended.
fn follow(member: &mut Member, number: u32) -> Result<Ended> {
    let hypercall = word(member, offset_of!(Modules, hypercall))?;
    let run = word(member, offset_of!(Modules, run))?;
    let mut left = PATIENCE;
    let mut signal = 0;
    loop {
        let start = Instant::now();
        let pause = member.target.held()?.go(signal, start + left)?;
        left = left.saturating_sub(start.elapsed());
        signal = 0;
        match pause {
            Pause::Trap(regs) if regs.rip == hypercall + 1 => {
                let said = service::serve(member, number, &arguments(&regs))?;
                member.target.held()?.set_registers(&Registers { rax: said, orig_rax: u64::MAX, ..regs })?;
            }
            Pause::Trap(regs) if (run..run + RUN_BYTES).contains(&regs.rip) => return Ok(Ok(regs.rax)),
            // A probe of somebody's: the agent's handler deals with it.
            Pause::Trap(regs) if is_probe(member, regs.rip.wrapping_sub(1))? => signal = libc::SIGTRAP,
            Pause::Trap(regs) => {
                return Ok(Err(format!("executed a breakpoint {}", place(member, number, regs.rip.wrapping_sub(1))?)));
            }
            Pause::Fault(signal, regs) => {
                return Ok(Err(format!("raised {} {}", signal_name(signal), place(member, number, regs.rip)?)));
            }
            Pause::Late => return Ok(Err(format!("did not end within {} seconds", PATIENCE.as_secs()))),
        }
    }
}

/// `agent_run` is no longer: a few instructions, the last of them the breakpoint that a function returns to.
const RUN_BYTES: u64 = 12;

fn word(member: &Member, offset: usize) -> Result<u64> {
    member.target.memory().word(table::field(member.target.agent.home, offset))
}

/// A call's number, and its arguments (System V psABI, 3.2.3).
fn arguments(regs: &Registers) -> [u64; 5] {
    [regs.rdi, regs.rsi, regs.rdx, regs.rcx, regs.r8]
}

/// Whether a breakpoint at this address is a probe's, or a return probe's stub.
fn is_probe(member: &Member, address: u64) -> Result<bool> {
    let stubs = member.target.memory().word(member.target.home(offset_of!(Home, stubs)))?;
    Ok((stubs..stubs + STUB_BYTES).contains(&address) || member.registry.armed().any(|armed| armed == address))
}

/// Where an address is, for a reader.
fn place(member: &Member, number: u32, address: u64) -> Result<String> {
    let modules = table::stored(member.target.memory(), member.target.agent.home)?;
    let own = modules.iter().find(|m| m.number == number).and_then(|m| Some((m, address.checked_sub(m.base)?)));
    Ok(match own.filter(|(m, offset)| *offset < m.size) {
        Some((module, offset)) => format!("at {}+{offset:#x}", module.name),
        None => format!("at {address:#x}"),
    })
}

pub(super) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        _ => return format!("signal {signal}"),
    };
    name.into()
}
