//! Breakpoints that are no probe's: who is asked about them, and what the program gets.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use host_process::local::{Error, Handler, Hit, Kprobe, Next, Notified, NotifierHandler, Process, Verdict};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const RAX: usize = 0;
const RBX: usize = 3;

/// Who was asked, as digits; and by whom the trap is to be claimed.
static ASKED: AtomicU64 = AtomicU64::new(0);
static CLAIMS: AtomicU64 = AtomicU64::new(0);
/// What was told: address, trap, program counter.
static TOLD: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// What the program's own handler has got: how often, the program counter, rbx.
static OWN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// The process has one chain, and one action for the signal.
static ALONE: Mutex<()> = Mutex::new(());

fn answer(hit: &mut Hit<'_>, name: u64) -> Verdict {
    let before = ASKED.load(Ordering::Relaxed);
    ASKED.store(before * 10 + name, Ordering::Relaxed);
    let told = [hit.address(), hit.trap(), hit.regs().rip];
    TOLD.iter().zip(told).for_each(|(to, value)| to.store(value, Ordering::Relaxed));
    hit.regs_mut().gpr[RAX] = name;
    hit.regs_mut().gpr[RBX] += name;
    if CLAIMS.load(Ordering::Relaxed) == name { Verdict::Stop } else { Verdict::Pass }
}

extern "C" fn first(hit: &mut Hit<'_>) -> Verdict {
    answer(hit, 1)
}

extern "C" fn second(hit: &mut Hit<'_>) -> Verdict {
    answer(hit, 2)
}

extern "C" fn third(hit: &mut Hit<'_>) -> Verdict {
    answer(hit, 3)
}

extern "C" fn faults(_: &mut Hit<'_>) -> Verdict {
    ASKED.store(ASKED.load(Ordering::Relaxed) * 10 + 9, Ordering::Relaxed);
    // SAFETY: none; the fault ends the handler.
    unsafe { core::arch::asm!("mov qword ptr [{0}], 1", in(reg) 0x10_u64) };
    Verdict::Stop
}

fn notify(priority: i32, function: NotifierHandler) -> Result<Notified, Error> {
    // SAFETY: those of these tests use atomics and registers only; the one that faults holds nothing.
    process().notify(priority, unsafe { Handler::new(function) })
}

extern "C" fn on_trap(_: i32, _: *const libc::siginfo_t, context: *const libc::ucontext_t) {
    // SAFETY: the frame of this very signal.
    let registers = unsafe { (*context).uc_mcontext.gregs };
    OWN[0].fetch_add(1, Ordering::Relaxed);
    OWN[1].store(registers[libc::REG_RIP as usize].cast_unsigned(), Ordering::Relaxed);
    OWN[2].store(registers[libc::REG_RBX as usize].cast_unsigned(), Ordering::Relaxed);
}

/// The process, whose program has a handler of its own for `SIGTRAP`.
fn process() -> &'static Process {
    // SAFETY: the handler touches atomics only.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut()), 0);
    }
    Process::start().unwrap()
}

/// What came of a breakpoint of the program's own.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    asked: u64,
    own: u64,
    rax: u64,
    rbx: u64,
}

/// Executes a breakpoint with 7 in rax and 1000 in rbx, which `claims` is to claim.
fn breakpoint(claims: u64) -> Came {
    CLAIMS.store(claims, Ordering::Relaxed);
    ASKED.store(0, Ordering::Relaxed);
    let own = OWN[0].load(Ordering::Relaxed);
    let (rax, rbx, behind): (u64, u64, u64);
    // SAFETY: whoever handles it goes on behind the breakpoint, with rax and rbx changed at most; rbx is kept.
    unsafe {
        core::arch::asm!(
            "xchg {kept}, rbx", "mov rbx, 1000", "lea {behind}, [rip + 2f]", "int3", "2:", "xchg {kept}, rbx",
            inout("rax") 7_u64 => rax, behind = out(reg) behind, kept = out(reg) rbx,
        );
    }
    let own = OWN[0].load(Ordering::Relaxed) - own;
    if own != 0 {
        assert_eq!(OWN[1].load(Ordering::Relaxed), behind);
    }
    let told = TOLD.each_ref().map(|t| t.load(Ordering::Relaxed));
    let asked = ASKED.load(Ordering::Relaxed);
    assert!(matches!(asked, 0 | 9) || told == [behind - 1, 3, behind], "{told:x?} {behind:#x}");
    Came { asked, own, rax, rbx }
}

fn unnotify(all: impl IntoIterator<Item = Notified>) {
    all.into_iter().for_each(|notified| process().unnotify(notified).unwrap());
}

#[test]
fn notifiers_are_asked_in_order_until_one_claims_the_trap() {
    let _alone = ALONE.lock();
    process();
    let untouched = |asked| Came { asked, own: 1, rax: 7, rbx: 1000 };
    assert_eq!(breakpoint(1), untouched(0));
    let [a, b, c] = [(0, first as NotifierHandler), (i32::MAX, second), (0, third)]
        .map(|(priority, function)| notify(priority, function).unwrap());
    assert_eq!(breakpoint(0), untouched(213));
    assert_eq!(OWN[2].load(Ordering::Relaxed), 1000, "as nobody had been asked");
    assert_eq!(breakpoint(1), Came { asked: 21, own: 0, rax: 1, rbx: 1001 });
    assert_eq!(breakpoint(2), Came { asked: 2, own: 0, rax: 2, rbx: 1002 });
    unnotify([a]);
    assert_eq!(breakpoint(0), untouched(23));
    let a = notify(i32::MIN, first).unwrap();
    assert_eq!(breakpoint(1), Came { asked: 231, own: 0, rax: 1, rbx: 1001 });
    unnotify([a, b, c]);
    assert_eq!(breakpoint(1), untouched(0));
}

#[test]
fn a_notifier_that_faults_is_asked_no_more() {
    let _alone = ALONE.lock();
    let process = process();
    let [bad, good] =
        [(5, faults as NotifierHandler), (0, first)].map(|(priority, function)| notify(priority, function).unwrap());
    assert_eq!(breakpoint(1), Came { asked: 91, own: 0, rax: 1, rbx: 1001 });
    assert_eq!((process.is_asked(&bad).unwrap(), process.is_asked(&good).unwrap()), (false, true));
    assert_eq!(breakpoint(1).asked, 1);
    unnotify([bad, good]);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_a_probe_s(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

extern "C" fn runs_into_a_breakpoint(_: &mut Hit<'_>) -> Next {
    // SAFETY: the program's handler returns behind it.
    unsafe { core::arch::asm!("int3") };
    Next::Step
}

#[test]
fn breakpoints_of_probes_and_of_handlers_are_asked_about_nobody() {
    let _alone = ALONE.lock();
    let process = process();
    let notified = notify(i32::MAX, first).unwrap();
    let probe = process.register(Kprobe::symbol("is_a_probe_s")).unwrap();
    CLAIMS.store(1, Ordering::Relaxed);
    ASKED.store(0, Ordering::Relaxed);
    assert_eq!(is_a_probe_s(1), 2);
    assert_eq!((process.counts_of(&probe).unwrap().hits, ASKED.load(Ordering::Relaxed)), (1, 0));
    process.unregister(probe).unwrap();
    // SAFETY: it holds nothing.
    let pre = unsafe { Handler::new(runs_into_a_breakpoint as extern "C" fn(&mut Hit<'_>) -> Next) };
    let probe = process.register(Kprobe::symbol("is_a_probe_s").pre(pre)).unwrap();
    let own = OWN[0].load(Ordering::Relaxed);
    assert_eq!(is_a_probe_s(1), 2);
    assert_eq!((OWN[0].load(Ordering::Relaxed) - own, ASKED.load(Ordering::Relaxed)), (1, 0));
    process.unregister(probe).unwrap();
    unnotify([notified]);
}

#[test]
fn there_is_room_for_sixteen() {
    let _alone = ALONE.lock();
    let all: Vec<Notified> = (0..16).map(|_| notify(0, first).unwrap()).collect();
    assert!(matches!(notify(0, first), Err(Error::NotifiersFull { limit: 16 })));
    assert_eq!(breakpoint(0).asked, 1_111_111_111_111_111);
    unnotify(all);
    assert_eq!(breakpoint(1).asked, 0);
}

#[test]
fn notifiers_come_and_go_under_breakpoints() {
    let _alone = ALONE.lock();
    process();
    let stop = AtomicU64::new(0);
    CLAIMS.store(1, Ordering::Relaxed);
    let asked = std::thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                breakpoint(1);
            }
        });
        for _ in 0..300 {
            let notified = notify(0, first).unwrap();
            std::thread::yield_now();
            unnotify([notified]);
        }
        stop.store(1, Ordering::Relaxed);
        TOLD[1].load(Ordering::Relaxed)
    });
    assert_eq!(asked, 3);
}
