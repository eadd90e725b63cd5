//! All that a probe module can do, for the kernel's tests: well, and badly.

#![no_std]

use module::{Counter, Error, Handler, Hit, Kprobe, Kretprobe, Next, Registered, Slot, Watch};

module::module! {
    name: "exercise",
    description: "What a module can do",
    parameters: [
        /// The function to be probed, of three arguments: numbers, and a text.
        FUNCTION: str = "modules_target",
        /// What a hit does: `print`, `count`, `fault`, `panic`, `register`.
        HIT: str = "print",
        /// Added to the first argument in what is printed.
        ADD: u64 = 0,
        /// Added to the result in what is printed.
        SHIFT: i64 = 0,
        /// `init` fails, with its probes registered.
        GIVE_UP: bool = false,
        /// `exit` leaves its probes to the host.
        LEAVE: bool = false,
    ],
    init: init,
    exit: exit,
}

static HITS: Counter = Counter::new();
static RETURNS: Counter = Counter::new();
static PROBES: Slot<[Registered; 2]> = Slot::new();

/// A function of the module's own, for others to probe.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn exercise_own(value: u64) -> u64 {
    core::hint::black_box(value) + 1
}

fn init() -> Result<(), Error> {
    let pre: module::PreHandler = match HIT.get() {
        "fault" => fault,
        "panic" => panic,
        "register" => register,
        "count" => count,
        _ => print,
    };
    // SAFETY: they read what may be read, count and print; or end in the ways that are tested here.
    let (pre, entry, returned) =
        unsafe { (Handler::new(pre), Handler::new(entered as _), Handler::new(returned as _)) };
    let probe = Kprobe::symbol(FUNCTION.get()).pre(pre).into();
    let of_return = Kretprobe::symbol(FUNCTION.get()).entry(entry).handler(returned).into();
    PROBES.put(module::register_all([probe, of_return])?);
    if GIVE_UP.get() {
        return Err(Error::NameTooLong);
    }
    module::println!("exercise: {} at {:#x}", FUNCTION.get(), module::symbol(FUNCTION.get()).unwrap_or(0));
    Ok(())
}

extern "C" fn count(_: &mut Hit<'_>) -> Next {
    HITS.add(1);
    Next::Step
}

extern "C" fn print(hit: &mut Hit<'_>) -> Next {
    HITS.add(1);
    let regs = hit.regs();
    let first = exercise_own(regs.argument(1) + ADD.get());
    match module::read_string::<32>(regs.argument(3)) {
        Some(text) => module::println!("exercise: {first} {} {text} {}", regs.argument(2), module::comm()),
        None => module::println!("exercise: {first} {} nothing {}", regs.argument(2), module::comm()),
    }
    Next::Step
}

extern "C" fn fault(_: &mut Hit<'_>) -> Next {
    HITS.add(1);
    // SAFETY: none: it is what a handler must not do.
    let _ = unsafe { core::hint::black_box(core::ptr::without_provenance::<u64>(0x10)).read_volatile() };
    Next::Step
}

extern "C" fn panic(_: &mut Hit<'_>) -> Next {
    panic!("as was wished");
}

extern "C" fn register(_: &mut Hit<'_>) -> Next {
    match module::register(Kprobe::symbol(FUNCTION.get())) {
        Ok(probe) => probe.keep(),
        Err(error) => module::println!("exercise: {error}"),
    }
    Next::Step
}

extern "C" fn entered(hit: &mut Hit<'_>, first: &mut u64) -> Watch {
    *first = hit.regs().argument(1);
    if *first == 0 { Watch::No } else { Watch::Yes }
}

extern "C" fn returned(hit: &mut Hit<'_>, first: &mut u64) {
    RETURNS.add(1);
    if HIT.get() == "print" {
        let value = hit.regs().return_value() as i64 + SHIFT.get();
        module::println!("exercise: {first} returns {value}");
    }
}

fn exit() {
    let counted = PROBES.with(|[probe, _]| probe.counts().map_or(0, |counts| counts.hits)).unwrap_or(0);
    if !LEAVE.get()
        && let Some([probe, of_return]) = PROBES.take()
    {
        // In this order: so none sees a return whose call the other has not seen.
        let _ = of_return.unregister();
        let _ = probe.unregister();
    }
    module::println!("exercise: {} hits, {} returns, {counted} counted", HITS.sum(), RETURNS.sum());
}
