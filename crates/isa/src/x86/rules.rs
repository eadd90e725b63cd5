//! What the hardware makes impossible: the refusals of [`super::analyse`], by instruction.

use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic};

use super::{Privilege, Refusal, Site};

/// The rule that forbids to probe `instruction`, if one does.
pub(super) fn refusal(instruction: &Instruction, site: Site, privilege: Privilege) -> Option<Refusal> {
    let kernel = privilege == Privilege::Kernel;
    match instruction.mnemonic() {
        Mnemonic::Int3 | Mnemonic::Int1 => Some(Refusal::Breakpoint(site)),
        Mnemonic::Int if kernel || instruction.immediate8() != 0x80 => Some(Refusal::Interrupt(site)),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Some(Refusal::InvalidOpcode(site)),
        Mnemonic::Call if far_call(instruction.code()) => Some(Refusal::FarCall(site)),
        Mnemonic::Loope | Mnemonic::Loopne if repeated(site.bytes()) => Some(Refusal::RepeatPrefix(site)),
        Mnemonic::Rsm | Mnemonic::Enclu | Mnemonic::Enclv => Some(Refusal::AddressVisible(site)),
        mnemonic if kernel && changes_privilege(mnemonic) => Some(Refusal::PrivilegeTransition(site)),
        _ if kernel && virtualizes(instruction) => Some(Refusal::Virtualization(site)),
        _ if !kernel && always_privileged(instruction) => Some(Refusal::Privileged(site)),
        _ => None,
    }
}

/// A near branch whose operand size is 16 bits on some processors: prefix 66 and no REX.W, which
/// overrides it everywhere.
///
/// Compilers emit `66 66 48 e8` for thread-local storage; that one is a call like any other. A REX
/// prefix counts only directly before the opcode.
pub(super) fn short_operand(bytes: &[u8]) -> bool {
    let mut operand_16 = false;
    let mut wide = false;
    for byte in bytes {
        match byte {
            0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3 => {
                operand_16 |= *byte == 0x66;
                wide = false;
            }
            0x40..=0x4F => wide = byte & 8 != 0,
            _ => break,
        }
    }
    operand_16 && !wide
}

/// Whether a legacy prefix is F2 or F3; iced keeps them only for instructions that they mean
/// something for.
fn repeated(bytes: &[u8]) -> bool {
    let prefix = |byte: &&u8| !matches!(byte, 0xE0 | 0xE1);
    bytes.iter().take_while(prefix).any(|byte| matches!(byte, 0xF2 | 0xF3))
}

fn far_call(code: Code) -> bool {
    matches!(code, Code::Call_m1616 | Code::Call_m1632 | Code::Call_m1664 | Code::Call_ptr1616 | Code::Call_ptr1632)
}

fn changes_privilege(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Syscall
            | Mnemonic::Sysret
            | Mnemonic::Sysretq
            | Mnemonic::Sysenter
            | Mnemonic::Sysexit
            | Mnemonic::Sysexitq
            | Mnemonic::Erets
            | Mnemonic::Eretu
            | Mnemonic::Uiret
    )
}

fn virtualizes(instruction: &Instruction) -> bool {
    let vm = |feature: &CpuidFeature| matches!(feature, CpuidFeature::VMX | CpuidFeature::SVM | CpuidFeature::SKINIT);
    instruction.cpuid_features().iter().any(vm)
}

/// Privileged, and not made available by an I/O privilege level or permission map, which a process
/// may have.
fn always_privileged(instruction: &Instruction) -> bool {
    instruction.is_privileged()
        && !matches!(
            instruction.mnemonic(),
            Mnemonic::In
                | Mnemonic::Out
                | Mnemonic::Insb
                | Mnemonic::Insw
                | Mnemonic::Insd
                | Mnemonic::Outsb
                | Mnemonic::Outsw
                | Mnemonic::Outsd
                | Mnemonic::Cli
                | Mnemonic::Sti
        )
}
