//! `SIGTRAP` belongs to the probes, and the program does not notice.

use host_process::local::{Error, Process};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

static TRAPS: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn probed_beside_a_handler(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

extern "C" fn on_trap(_: i32, info: *const libc::siginfo_t, context: *const libc::ucontext_t) {
    TRAPS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel's, or what it would have given.
    let (code, rip) = unsafe { ((*info).si_code, (*context).uc_mcontext.gregs[libc::REG_RIP as usize]) };
    LAST.store(if code == 0x80 { rip.cast_unsigned() } else { 0 }, Ordering::Relaxed);
}

fn set_mask(how: i32) {
    // SAFETY: a set on this stack.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGTRAP);
        libc::pthread_sigmask(how, &raw const set, core::ptr::null_mut());
    }
}

/// A breakpoint of the program's own; the address behind it.
fn own_breakpoint() -> u64 {
    let behind: u64;
    // SAFETY: the handler returns behind the breakpoint.
    unsafe { core::arch::asm!("lea {0}, [rip + 2f]", "int3", "2:", out(reg) behind) };
    behind
}

#[test]
fn a_program_with_a_handler_of_its_own_keeps_it() {
    // A thread that blocks everything is named, and nothing is planted.
    let (done, wait) = channel::<()>();
    let (ready, blocked) = channel::<()>();
    let sleeper = std::thread::Builder::new().name("sleeper".into()).spawn(move || {
        set_mask(libc::SIG_BLOCK);
        ready.send(()).unwrap();
        wait.recv().unwrap();
        set_mask(libc::SIG_UNBLOCK);
    });
    blocked.recv().unwrap();
    let refused = Process::start().unwrap_err();
    assert!(matches!(&refused, Error::Blocked { threads } if threads.starts_with("sleeper (")), "{refused}");
    done.send(()).unwrap();
    sleeper.unwrap().join().unwrap();

    // SAFETY: the handler touches atomics only.
    let installed = unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut())
    };
    assert_eq!(installed, 0);
    set_mask(libc::SIG_BLOCK);
    // The calling thread unblocks it for itself.
    let process = Process::start().unwrap();
    process.define("p:entry probed_beside_a_handler").unwrap();
    probed_beside_a_handler(1);
    set_mask(libc::SIG_UNBLOCK);
    probed_beside_a_handler(1);
    assert_eq!((process.counts("entry").unwrap().hits, TRAPS.load(Ordering::Relaxed)), (2, 0));

    let behind = own_breakpoint();
    assert_eq!((TRAPS.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed)), (1, behind));
    // SAFETY: has no memory argument.
    unsafe { libc::raise(libc::SIGTRAP) };
    assert_eq!((TRAPS.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed)), (2, 0));

    // A thread that blocks everything from now on is let off.
    let hit = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            set_mask(libc::SIG_BLOCK);
            hit.store(probed_beside_a_handler(2) == 3, Ordering::Relaxed);
        });
    });
    assert!(hit.load(Ordering::Relaxed));
    assert_eq!((process.counts("entry").unwrap().hits, TRAPS.load(Ordering::Relaxed)), (3, 2));
    process.remove_all().unwrap();
}
