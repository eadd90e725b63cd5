//! The end: a trap nobody knows.

use super::Frame;
use crate::console;

const NAMES: [&str; 22] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound",
    "#UD invalid opcode",
    "#NM no coprocessor",
    "#DF double fault",
    "coprocessor overrun",
    "#TS invalid task state",
    "#NP segment not present",
    "#SS stack fault",
    "#GP general protection",
    "#PF page fault",
    "reserved",
    "#MF floating point",
    "#AC alignment check",
    "#MC machine check",
    "#XM vector floating point",
    "#VE virtualization",
    "#CP control protection",
];

/// What a vector is called.
fn name(vector: u64) -> &'static str {
    NAMES.get(vector as usize).unwrap_or(&"reserved exception")
}

/// Prints everything about the trap and ends with failure. `detail` is cr2 of a page or double fault, DR6 of a debug exception.
pub(super) fn die(frame: &Frame, detail: u64) -> ! {
    crate::panic::begin();
    let what = name(frame.vector);
    crate::println!(
        "PANIC: {what} at {} belongs to nobody, vector {} error {:#x} detail {detail:#x}",
        Place(frame.regs.rip),
        frame.vector,
        frame.error
    );
    if frame.rip != frame.regs.rip {
        crate::println!("  the processor was at {}", Place(frame.rip));
    }
    const ROWS: [[&str; 4]; 4] = [
        ["rax", "rcx", "rdx", "rbx"],
        ["rsp", "rbp", "rsi", "rdi"],
        ["r8 ", "r9 ", "r10", "r11"],
        ["r12", "r13", "r14", "r15"],
    ];
    for (row, names) in ROWS.iter().enumerate() {
        let gpr = &frame.regs.gpr[row * 4..][..4];
        crate::println!(
            "  {} {:016x}  {} {:016x}  {} {:016x}  {} {:016x}",
            names[0],
            gpr[0],
            names[1],
            gpr[1],
            names[2],
            gpr[2],
            names[3],
            gpr[3]
        );
    }
    crate::println!("  flags {:#x} cs {:#x} ss {:#x}", frame.regs.flags, frame.cs, frame.ss);
    crate::panic::backtrace(frame.regs.rip, frame.regs.gpr[isa::x86::gpr::RBP]);
    console::shutdown(false)
}

/// An address, with its function if the symbolizer knows it.
pub(crate) struct Place(pub(crate) u64);

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match console::symbolize(self.0) {
            Some((name, offset)) => write!(f, "{:#x} ({name}+{offset:#x})", self.0),
            None => write!(f, "{:#x}", self.0),
        }
    }
}
