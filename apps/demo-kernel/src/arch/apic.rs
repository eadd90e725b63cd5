//! The local interrupt controller (SDM volume 3, chapter 11), by memory: QEMU's emulation has no x2APIC.

use core::sync::atomic::{AtomicU64, Ordering};

use super::trap::vector;
use super::{cpu, interrupts};
use crate::mm;

const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_CURRENT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLE: u32 = 1 << 8;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_16: u32 = 3;

const DELIVERY_NMI: u32 = 4 << 8;
const DELIVERY_INIT: u32 = 5 << 8;
const DELIVERY_STARTUP: u32 = 6 << 8;
const ASSERT: u32 = 1 << 14;
const PENDING: u32 = 1 << 12;

/// Where the registers are mapped; 0 until [`init`].
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Timer interrupts in a second.
pub(crate) const HZ: u64 = 250;

fn read(register: u64) -> u32 {
    let address = (REGISTERS.load(Ordering::Relaxed) + register) as *const u32;
    // SAFETY: `init` has mapped the page of registers, and every constant above names one of them.
    unsafe { address.read_volatile() }
}

fn write(register: u64, value: u32) {
    let address = (REGISTERS.load(Ordering::Relaxed) + register) as *mut u32;
    // SAFETY: as in `read`; what the registers do to the machine (interrupts) the kernel is prepared for.
    unsafe { address.write_volatile(value) }
}

/// Maps the registers, which lie at the same place for every processor, each seeing its own.
pub(crate) fn init() {
    const BASE_FIELD: u64 = 0xf_ffff_f000;
    // SAFETY: IA32_APIC_BASE exists on every processor of long mode; reading it changes nothing.
    let base = unsafe { x86_64::registers::model_specific::Msr::new(0x1b).read() } & BASE_FIELD;
    REGISTERS.store(mm::map_device(base), Ordering::Release);
    init_processor();
}

/// Switches this processor's controller on.
pub(crate) fn init_processor() {
    write(SPURIOUS, ENABLE | u32::from(vector::SPURIOUS));
    cpu::this().apic_id.store(u64::from(id()), Ordering::Relaxed);
}

/// This processor's number in the interrupt controllers' own count.
pub(crate) fn id() -> u32 {
    read(ID) >> 24
}

/// The interrupt in service has been taken note of.
pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Lets the timer run down from its largest value, without interrupts, for calibration.
pub(crate) fn start_counting() {
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(TIMER, MASKED | u32::from(vector::TIMER));
    write(TIMER_INITIAL, u32::MAX);
}

/// How far the timer has counted since [`start_counting`].
pub(crate) fn counted() -> u32 {
    u32::MAX - read(TIMER_CURRENT)
}

/// Starts this processor's periodic timer.
pub(crate) fn start_timer(counts_per_second: u64) {
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(TIMER, PERIODIC | u32::from(vector::TIMER));
    write(TIMER_INITIAL, (counts_per_second / HZ).max(1) as u32);
}

/// Stops this processor's timer.
pub(crate) fn stop_timer() {
    write(TIMER_INITIAL, 0);
}

fn command(apic_id: u32, low: u32) {
    interrupts::without(|| {
        while read(COMMAND_LOW) & PENDING != 0 {
            core::hint::spin_loop();
        }
        write(COMMAND_HIGH, apic_id << 24);
        write(COMMAND_LOW, low);
        while read(COMMAND_LOW) & PENDING != 0 {
            core::hint::spin_loop();
        }
    });
}

fn apic_id(cpu: usize) -> u32 {
    cpu::block(cpu).apic_id.load(Ordering::Relaxed) as u32
}

/// Interrupts processor `cpu`.
pub(crate) fn send(cpu: usize, vector: u8) {
    command(apic_id(cpu), ASSERT | u32::from(vector));
}

/// Sends processor `cpu` an interrupt that it cannot refuse.
pub(crate) fn send_nmi(cpu: usize) {
    command(apic_id(cpu), ASSERT | DELIVERY_NMI);
}

/// Resets a processor, which then waits for [`send_startup`].
pub(crate) fn send_init(apic_id: u32) {
    command(apic_id, ASSERT | DELIVERY_INIT);
}

/// Starts a processor in real mode at page number `page`.
pub(crate) fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, ASSERT | DELIVERY_STARTUP | u32::from(page));
}
