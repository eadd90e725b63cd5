//! The processor: traps, per-CPU blocks, other processors, time. x86_64 only.

pub(crate) mod acpi;
pub(crate) mod apic;
pub(crate) mod copy;
pub(crate) mod cpu;
pub(crate) mod interrupts;
pub(crate) mod ipi;
pub(crate) mod pic;
pub(crate) mod smp;
pub(crate) mod time;
pub(crate) mod trap;
