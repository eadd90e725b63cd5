//! The end of a kernel in trouble: the other processors stop, the reason is printed, QEMU exits with failure.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::trap::fault::Place;
use crate::arch::{copy, cpu, interrupts, ipi};
use crate::{console, log};

const NOBODY: usize = usize::MAX;
/// Which processor panics.
static PANICKING: AtomicUsize = AtomicUsize::new(NOBODY);

fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// This processor panics: stops the others and takes the console. A second panic on the same processor ends at once.
pub(crate) fn begin() {
    interrupts::disable();
    let me = cpu::id();
    match PANICKING.compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(who) if who == me => console::shutdown(false),
        Err(_) => halt(),
    }
    (0..cpu::count()).filter(|&id| id != me).for_each(ipi::nmi);
    console::seize();
    log::drain_in_panic();
}

/// Called by NMIs: stops here if another processor panics.
#[unsafe(link_section = ".kprobes.text")]
#[inline]
pub(crate) fn stop_if_panicking() {
    let who = PANICKING.load(Ordering::Acquire);
    if who != NOBODY && who != cpu::id() {
        halt();
    }
}

/// Prints the return addresses from `rip` up, by frame pointers.
pub(crate) fn backtrace(rip: u64, mut rbp: u64) {
    crate::println!("  at {}", Place(rip));
    for _ in 0..24 {
        let (Some(up), Some(from)) = (copy::read_u64(rbp), copy::read_u64(rbp.wrapping_add(8))) else { return };
        if from == 0 {
            return;
        }
        crate::println!("  from {}", Place(crate::probes::true_return_address(from)));
        // Frames lie upwards on the stack.
        if up <= rbp {
            return;
        }
        rbp = up;
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    crate::println!("PANIC on processor {}: {info}", cpu::id());
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    backtrace(panic as *const () as u64, rbp);
    console::shutdown(false)
}
