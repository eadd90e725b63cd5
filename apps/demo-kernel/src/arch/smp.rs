//! Starting the other processors: INIT, start-up, one after the other (SDM volume 3, 9.4).
//!
//! A processor begins in real mode at `TRAMPOLINE`. That page is executable at its physical address until all run,
//! and therefore not writable meanwhile, anywhere; it loads the same page tables as everybody and jumps to
//! `ap_start` in the high half.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use x86_64::registers::control::Cr3;

use super::{acpi, apic, cpu, time, trap};
use crate::mm::{self, paging, stacks};
use crate::{boot, sched};

core::arch::global_asm!(include_str!("smp.s"));

/// Physical address of the first code of a processor.
const TRAMPOLINE: u64 = 0x8000;

unsafe extern "C" {
    static ap_trampoline: [u8; 0];
    static ap_trampoline_end: [u8; 0];
    static ap_trampoline_cr3: [u8; 0];
}

/// The top of the stack for the processor that starts; read by `ap_start`.
#[unsafe(no_mangle)]
static AP_STACK: AtomicU64 = AtomicU64::new(0);
/// Its number.
static AP_ID: AtomicUsize = AtomicUsize::new(0);

fn trampoline() -> (&'static [u8], usize) {
    let first = (&raw const ap_trampoline).cast::<u8>();
    // SAFETY: `smp.s` lays the trampoline out between the two symbols, with the third inside.
    unsafe {
        let bytes = (&raw const ap_trampoline_end).cast::<u8>().offset_from(first) as usize;
        let cr3 = (&raw const ap_trampoline_cr3).cast::<u8>().offset_from(first) as usize;
        (core::slice::from_raw_parts(first, bytes), cr3)
    }
}

fn place_trampoline() {
    let (code, cr3_offset) = trampoline();
    let cr3 = Cr3::read().0.start_address().as_u64() as u32;
    mm::write_physical(TRAMPOLINE, code);
    mm::write_physical(TRAMPOLINE + cr3_offset as u64, &cr3.to_le_bytes());
    paging::expose_identity(TRAMPOLINE);
}

/// Starts every other processor and then takes the low mappings away.
pub(crate) fn start_others() {
    let me = apic::id();
    let others = acpi::local_apics().into_iter().filter(|&id| id != me).take(cpu::MAX - 1);
    place_trampoline();
    let mut next = 1;
    for apic_id in others {
        if start(next, apic_id) {
            next += 1;
        } else {
            crate::println!("demo-kernel: processor with APIC {apic_id} does not start");
        }
    }
    paging::hide_identity(TRAMPOLINE);
    boot::finish();
}

fn start(id: usize, apic_id: u32) -> bool {
    const PAGE: u8 = (TRAMPOLINE >> 12) as u8;
    AP_ID.store(id, Ordering::Relaxed);
    AP_STACK.store(stacks::Stack::new().into_top(), Ordering::Release);
    apic::send_init(apic_id);
    time::spin_us(1000);
    // The second start-up is for processors that missed the first; it does nothing to one that runs.
    for _ in 0..2 {
        apic::send_startup(apic_id, PAGE);
        for _ in 0..1000 {
            if cpu::online(id) {
                return true;
            }
            time::spin_us(500);
        }
    }
    false
}

/// A processor's first Rust function.
#[unsafe(no_mangle)]
extern "C" fn ap_main() -> ! {
    cpu::claim(AP_ID.load(Ordering::Relaxed));
    trap::load();
    cpu::load_tables();
    apic::init_processor();
    sched::adopt("idle");
    time::start_ticking();
    cpu::set_online();
    sched::idle()
}
