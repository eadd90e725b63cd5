//! Every way out of a function.
//!
//! A return probe without a hook on the return address probes the exits instead, and may only claim
//! to see every return if none is missing. So whatever is not proven to stay inside counts as a way
//! out.
//!
//! # Jump tables
//!
//! An indirect jump stays inside if it goes through a table, which is known by its shape alone, as
//! compilers emit it:
//!
//! ```text
//! movsxd x, dword ptr [table+i*4]     or      mov x, [table+i*8]      or      jmp [table+i*8]
//! add    x, table                             jmp x
//! jmp    x
//! ```
//!
//! Four-byte entries relative to the table itself, or an array of eight-byte addresses that is
//! indexed by more than a constant: a tail call through a virtual table has a constant displacement
//! and no index. The last shape also fits a tail call through an array of function pointers, which
//! is how interpreters dispatch, so eight-byte tables are believed only if the table's address is a
//! constant of the program and the function compares an index before (`cmp`, `and`, …): otherwise
//! the jump is an exit.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::decode::{Flow, flow};
use super::function::instructions;

/// How many instructions before an indirect jump are searched for its table.
const WINDOW: usize = 16;

/// One way out of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A near return.
    Ret {
        /// Its address.
        addr: u64,
    },
    /// A jump out: a tail call, or to a part of the function that was split off.
    TailJump {
        /// Its address.
        addr: u64,
        /// Where it goes.
        target: u64,
    },
    /// A conditional jump out.
    ConditionalTailJump {
        /// Its address.
        addr: u64,
        /// Where it goes.
        target: u64,
    },
    /// An indirect jump that is not known to stay inside.
    Indirect {
        /// Its address.
        addr: u64,
    },
    /// A jump through one pointer at a fixed address: a tail call through the global offset table.
    /// Nothing but a static variable that holds the address of a label would make it stay inside;
    /// who knows the object can check that `pointer` is in its global offset table.
    IndirectTailJump {
        /// Its address.
        addr: u64,
        /// Where the pointer is.
        pointer: u64,
    },
    /// A far jump or return, or a return from an interrupt or system call.
    Far {
        /// Its address.
        addr: u64,
    },
    /// Execution may run past the end, unless the last instruction is a call that does not return.
    FallsOff {
        /// The end.
        addr: u64,
        /// Whether the last instruction is a call.
        after_call: bool,
    },
    /// These bytes are no instruction; what follows is unknown.
    Undecodable {
        /// Their address.
        addr: u64,
    },
}

/// All ways out of a function.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exits {
    /// In the order of their addresses.
    pub ways: Vec<Exit>,
    /// Indirect jumps that go through a table and stay inside.
    pub tables: Vec<u64>,
    /// Jumps within the function to an address that is inside an instruction.
    pub misaligned: Vec<u64>,
}

impl Exits {
    /// Whether every way out is known by its address: probes on all of them see every return of the
    /// function.
    ///
    /// A call at the end is taken not to return, as compilers take it.
    #[must_use]
    pub fn enumerable(&self) -> bool {
        self.misaligned.is_empty()
            && self.ways.iter().all(|exit| match exit {
                Exit::Ret { .. }
                | Exit::TailJump { .. }
                | Exit::ConditionalTailJump { .. }
                | Exit::IndirectTailJump { .. } => true,
                Exit::FallsOff { after_call, .. } => *after_call,
                Exit::Indirect { .. } | Exit::Far { .. } | Exit::Undecodable { .. } => false,
            })
    }

    /// Whether all are near returns.
    #[must_use]
    pub fn only_returns(&self) -> bool {
        self.misaligned.is_empty() && self.ways.iter().all(|exit| matches!(exit, Exit::Ret { .. }))
    }
}

/// The ways out of the function whose `code` begins at `start`.
///
/// ```
/// use isa::x86::{Exit, exits};
///
/// // test edi, edi; je to the ret; jmp out; ret
/// let code = [0x85, 0xFF, 0x74, 5, 0xE9, 0, 1, 0, 0, 0xC3];
/// let all = exits(&code, 0x1000);
/// assert_eq!(all.ways, [Exit::TailJump { addr: 0x1004, target: 0x1109 }, Exit::Ret { addr: 0x1009 }]);
/// assert!(all.enumerable() && !all.only_returns());
///
/// // jmp rax: nobody knows where it goes.
/// assert!(!exits(&[0xFF, 0xE0], 0x1000).enumerable());
/// ```
#[must_use]
pub fn exits(code: &[u8], start: u64) -> Exits {
    let all: Vec<Instruction> = instructions(code, start).collect();
    let end = start.wrapping_add(code.len() as u64);
    let targets: BTreeSet<u64> = all.iter().map(Instruction::near_branch_target).collect();
    let mut exits = Exits::default();
    for (i, instruction) in all.iter().enumerate() {
        let addr = instruction.ip();
        let mut outside = |target: u64| {
            let inside = target.wrapping_sub(start) < code.len() as u64;
            if inside && all.binary_search_by_key(&target, Instruction::ip).is_err() {
                exits.misaligned.push(addr);
            }
            !inside
        };
        match flow(instruction) {
            Flow::Return => exits.ways.push(Exit::Ret { addr }),
            Flow::Jump(target) if outside(target) => exits.ways.push(Exit::TailJump { addr, target }),
            Flow::Branch(target) if outside(target) => exits.ways.push(Exit::ConditionalTailJump { addr, target }),
            Flow::IndirectJump if through_table(&all, i, &targets) => exits.tables.push(addr),
            Flow::IndirectJump if instruction.is_ip_rel_memory_operand() => {
                let pointer = instruction.ip_rel_memory_address();
                exits.ways.push(Exit::IndirectTailJump { addr, pointer });
            }
            Flow::IndirectJump => exits.ways.push(Exit::Indirect { addr }),
            Flow::Leave if !stops(instruction) => exits.ways.push(Exit::Far { addr }),
            _ => {}
        }
    }
    exits.ways.extend(at_end(&all, start, end));
    exits
}

/// What happens behind the last instruction that was decoded.
fn at_end(all: &[Instruction], start: u64, end: u64) -> Option<Exit> {
    let decoded = all.last().map_or(start, Instruction::next_ip);
    if decoded != end {
        return Some(Exit::Undecodable { addr: decoded });
    }
    let padding = |instruction: &&Instruction| matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
    // Padding counts only behind an instruction that does not fall into it.
    let last = all.iter().rev().find(|instruction| !padding(instruction)).or(all.last())?;
    match flow(last) {
        Flow::Next | Flow::Branch(_) if !stops(last) => Some(Exit::FallsOff { addr: end, after_call: false }),
        Flow::Call(_) | Flow::IndirectCall => Some(Exit::FallsOff { addr: end, after_call: true }),
        _ => None,
    }
}

/// Execution ends here: it traps, or halts for ever.
fn stops(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 | Mnemonic::Int3 | Mnemonic::Int1 | Mnemonic::Hlt
    )
}

/// Whether the indirect jump `all[at]` has one of the shapes of a jump table.
fn through_table(all: &[Instruction], at: usize, targets: &BTreeSet<u64>) -> bool {
    let Some(jump) = all.get(at) else { return false };
    let before = all.get(at.saturating_sub(WINDOW)..at).unwrap_or_default();
    if jump.op0_kind() == OpKind::Memory {
        return address_table(jump, before);
    }
    if targets.contains(&jump.ip()) {
        return false;
    }
    // What defines the target must have been executed: no branch may lead behind it.
    let join = before.iter().rposition(|i| targets.contains(&i.ip())).unwrap_or_default();
    let straight = before.get(join..).unwrap_or_default();
    let Some((definition, earlier)) = writer(straight, jump.op0_register()) else { return false };
    match definition.mnemonic() {
        Mnemonic::Add if definition.op1_kind() == OpKind::Register => {
            relative_table(definition.op0_register(), definition.op1_register(), earlier)
        }
        Mnemonic::Mov if definition.op1_kind() == OpKind::Memory => {
            address_table(definition, before.get(..join + earlier.len()).unwrap_or_default())
        }
        _ => false,
    }
}

/// `add sum, other` of a table's address and an entry of it, whichever is which.
fn relative_table(sum: Register, other: Register, before: &[Instruction]) -> bool {
    let entry_of = |entry, table| {
        writer(before, entry).is_some_and(|(load, earlier)| {
            load.mnemonic() == Mnemonic::Movsxd
                && load.op1_kind() == OpKind::Memory
                && load.memory_index() != Register::None
                && load.memory_index_scale() == 4
                && load.memory_base() == table
                // The table's address is still the same where it is added.
                && before.get(earlier.len() + 1..).unwrap_or_default().iter().all(|i| !writes(i, table))
        })
    };
    entry_of(sum, other) || entry_of(other, sum)
}

/// A load of an eight-byte address from a constant table by an index that was bounded.
fn address_table(load: &Instruction, before: &[Instruction]) -> bool {
    let base = load.memory_base();
    let constant = base == Register::None
        || writer(before, base)
            .is_some_and(|(lea, _)| lea.mnemonic() == Mnemonic::Lea && lea.is_ip_rel_memory_operand());
    let bounded = before.iter().any(|i| matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::And | Mnemonic::Sub));
    load.memory_index() != Register::None && load.memory_index_scale() == 8 && constant && bounded
}

/// The last instruction that writes `register`, and those before it; nothing if control does not
/// come from there to the end of `before`.
fn writer(before: &[Instruction], register: Register) -> Option<(&Instruction, &[Instruction])> {
    let at = before.iter().rposition(|i| writes(i, register) || breaks(i))?;
    let found = before.get(at).filter(|i| !breaks(i))?;
    Some((found, before.get(..at)?))
}

fn breaks(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::Return
            | FlowControl::IndirectBranch
            | FlowControl::Call
            | FlowControl::IndirectCall
    )
}

fn writes(instruction: &Instruction, register: Register) -> bool {
    let mut factory = InstructionInfoFactory::new();
    factory.info(instruction).used_registers().iter().any(|used| {
        let written =
            !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess);
        written && used.register().full_register() == register.full_register()
    })
}
