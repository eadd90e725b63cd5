//! A program that steps itself by the trap flag sees its own instructions, one after the other, and none of ours.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use host_process::local::{Kprobe, Kretprobe, Process, Registered};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// `push`; `mov`; `lea`; `pop`; `ret`: a jump displaces three of them.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn is_stepped(x: u64) -> u64 {
    core::arch::naked_asm!("push rbx", "mov rbx, rdi", "lea rax, [rbx + 7]", "pop rbx", "ret")
}

const TRACE: i32 = 2;
static STEPPING: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<Vec<u64>> = Mutex::new(Vec::new());

extern "C" fn on_step(_: i32, info: *const libc::siginfo_t, context: *const libc::ucontext_t) {
    // SAFETY: the kernel's, or what it would have given.
    let (code, rip) = unsafe { ((*info).si_code, (*context).uc_mcontext.gregs[libc::REG_RIP as usize]) };
    assert!(code == TRACE && STEPPING.load(Ordering::Relaxed));
    // Nobody holds the lock where the thread steps, and there is room.
    SEEN.try_lock().unwrap().push(rip.cast_unsigned());
}

/// Calls the function, stepping; the addresses of the steps.
fn steps(argument: u64) -> Vec<u64> {
    SEEN.lock().unwrap().clear();
    SEEN.lock().unwrap().reserve(10_000);
    STEPPING.store(true, Ordering::Relaxed);
    let result: u64;
    // SAFETY: the function takes and gives a number; the flag is cleared again.
    unsafe {
        core::arch::asm!(
            "pushfq", "or dword ptr [rsp], 0x100", "popfq", "call {f}", "pushfq", "and dword ptr [rsp], -257", "popfq",
            f = sym is_stepped, in("rdi") argument, out("rax") result, clobber_abi("C"),
        );
    }
    STEPPING.store(false, Ordering::Relaxed);
    assert_eq!(result, argument + 7);
    SEEN.lock().unwrap().clone()
}

#[test]
fn a_program_that_steps_itself_sees_its_own_instructions() {
    // SAFETY: the handler takes a lock that the thread does not hold where it steps, and writes to memory that is there.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_step as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut()), 0);
    }
    let process = Process::start().unwrap();
    let without = steps(1);
    assert!(without.len() >= 8, "{without:x?}");
    let entry = is_stepped as *const () as u64;
    type Probes<'a> = &'a dyn Fn() -> Vec<Registered>;
    let kprobe = |at: u64| process.register(Kprobe::address(at)).unwrap();
    let kinds: [Probes<'_>; 3] =
        [&|| vec![kprobe(entry)], &|| vec![process.register(Kretprobe::<()>::address(entry)).unwrap()], &|| {
            vec![kprobe(entry + 1), kprobe(entry)]
        }];
    for probes in kinds {
        let probes = probes();
        let with = steps(2);
        // The step of an instruction that traps is lost.
        let strangers: Vec<_> = with.iter().filter(|at| !without.contains(at)).collect();
        assert!(strangers.is_empty(), "{strangers:x?} among {with:x?}, and not in {without:x?}");
        assert!(
            with.len() + probes.len() >= without.len()
                && with.is_sorted_by_key(|at| without.iter().position(|w| w == at))
        );
        for probe in probes {
            assert_eq!(process.counts_of(&probe).unwrap().hits, 1, "{with:x?}");
            process.unregister(probe).map_err(|(_, error)| error).unwrap();
        }
    }
}
