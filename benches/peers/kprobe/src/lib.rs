//! What the crate `kprobe` does at a hit, without the trap: it is for kernels, and leaves traps to them. The program calls
//! a function that hands saved registers to the crate's two handlers, that of the breakpoint and that of the single
//! step behind it, as a kernel would at each hit. The probe's handler counts. The function itself is not changed: its
//! breakpoint goes into a copy.

use std::ffi::{c_char, c_long, c_ulong};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kprobe::retprobe::RetprobeInstance;
use kprobe::{
    KprobeAuxiliaryOps, ProbeBuilder, ProbeManager, ProbePointList, PtRegs, kprobe_handler_from_break,
    kprobe_handler_from_debug, register_kprobe,
};

type Lock = spin::Mutex<()>;

/// Bytes of the probed instruction, `push rbp`.
const LENGTH: usize = 1;
const PAGE: usize = 4096;

static HITS: AtomicU64 = AtomicU64::new(0);
static TARGET: AtomicUsize = AtomicUsize::new(0);
static MANAGER: OnceLock<ProbeManager<Lock, Host>> = OnceLock::new();

/// What the crate wants of a kernel, as far as this needs it.
#[derive(Debug)]
struct Host;

impl KprobeAuxiliaryOps for Host {
    fn copy_memory(from: *const u8, to: *mut u8, length: usize, _: Option<i32>) {
        // SAFETY: the crate copies the target's code into memory of its own.
        unsafe { std::ptr::copy_nonoverlapping(from, to, length) }
    }

    fn set_writeable_for_address<F: FnOnce(*mut u8)>(_: usize, length: usize, _: Option<i32>, action: F) {
        action(vec![0_u8; length.max(PAGE)].leak().as_mut_ptr());
    }

    fn alloc_kernel_exec_memory() -> *mut u8 {
        vec![0_u8; PAGE].leak().as_mut_ptr()
    }

    fn free_kernel_exec_memory(_: *mut u8) {}

    fn alloc_user_exec_memory<F: FnOnce(*mut u8)>(_: Option<i32>, _: F) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn free_user_exec_memory(_: Option<i32>, _: *mut u8) {}

    fn insert_kretprobe_instance_to_task(_: RetprobeInstance) {}

    fn pop_kretprobe_instance_from_task() -> RetprobeInstance {
        unimplemented!("there are no return probes")
    }
}

/// Registers a probe on `target`; returns what is to be called, or null.
#[unsafe(no_mangle)]
pub extern "C" fn peer_install(target: *const ()) -> *const () {
    let manager = ProbeManager::new();
    let mut points = ProbePointList::new();
    let builder = ProbeBuilder::<Host>::new().with_symbol_addr(target as usize).with_data(());
    let builder = builder.with_pre_handler(|_, _| count()).with_enable(true);
    let Ok(probe) = register_kprobe(&manager, &mut points, builder) else { return std::ptr::null() };
    std::mem::forget((probe, points));
    TARGET.store(target as usize, Ordering::Relaxed);
    let _ = MANAGER.set(manager);
    hit as *const ()
}

/// How often it was hit.
#[unsafe(no_mangle)]
pub extern "C" fn peer_hits() -> c_ulong {
    HITS.load(Ordering::Relaxed)
}

fn count() {
    HITS.store(HITS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

extern "C" fn hit(number: c_long, _: *const c_char) -> c_long {
    // SAFETY: integers, for which zero is a value.
    let mut registers = unsafe { std::mem::zeroed::<PtRegs>() };
    // Behind the breakpoint, as the processor leaves it.
    registers.rip = TARGET.load(Ordering::Relaxed) + 1;
    let Some(manager) = MANAGER.get() else { return 0 };
    let stepping = kprobe_handler_from_break(manager, &mut registers);
    registers.rip += LENGTH;
    let stepped = kprobe_handler_from_debug(manager, &mut registers);
    if stepping.is_none() || stepped.is_none() {
        std::process::abort();
    }
    number + 1
}
