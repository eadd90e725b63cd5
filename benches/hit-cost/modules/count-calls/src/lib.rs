//! Counts the calls of a function in handlers: as little as a handler can do, so that what calls it is what is measured.

#![no_std]

use core::sync::atomic::{AtomicU64, Ordering};
use module::{Error, Handler, Hit, Kprobe, Kretprobe, Next, Registered, Slot, Watch, println, register};

module::module! {
    name: "count-calls",
    description: "Counts the calls of a function in handlers",
    parameters: [
        /// The function.
        SYMBOL: str = "hot:t_push",
        /// Where a handler is called: `entry`, `return` or `both`.
        AT: str = "entry",
    ],
    init: init,
    exit: exit,
}

/// Only one thread calls the function: no increment of its is lost.
static ENTERED: AtomicU64 = AtomicU64::new(0);
static RETURNED: AtomicU64 = AtomicU64::new(0);
static PROBE: Slot<Registered> = Slot::new();

fn init() -> Result<(), Error> {
    // SAFETY: they add to a number.
    let (hit, entered, returned) =
        unsafe { (Handler::new(hit as _), Handler::new(entered as _), Handler::new(returned as _)) };
    let on_return = || Kretprobe::<()>::symbol(SYMBOL.get()).handler(returned);
    let probe = match AT.get() {
        // SAFETY: they need a few words of stack, and no register that is not general; a count that is lost is no harm.
        "entry" => register(unsafe { Kprobe::symbol(SYMBOL.get()).pre(hit).light() })?,
        // SAFETY: as above.
        "return" => register(unsafe { on_return().light() })?,
        // SAFETY: as above.
        "both" => register(unsafe { on_return().entry(entered).light() })?,
        _ => return Err(Error::Other("at= is entry, return or both")),
    };
    PROBE.put(probe);
    Ok(())
}

fn count(counter: &AtomicU64, hit: &Hit<'_>) {
    // Every handler has the registers; one that does not look at them could do without.
    let used = hit.regs().argument(1) != u64::MAX;
    counter.store(counter.load(Ordering::Relaxed) + u64::from(used), Ordering::Relaxed);
}

extern "C" fn hit(hit: &mut Hit<'_>) -> Next {
    count(&ENTERED, hit);
    Next::Step
}

extern "C" fn entered(hit: &mut Hit<'_>, _: &mut ()) -> Watch {
    count(&ENTERED, hit);
    Watch::Yes
}

extern "C" fn returned(hit: &mut Hit<'_>, _: &mut ()) {
    count(&RETURNED, hit);
}

fn exit() {
    if let Some(probe) = PROBE.take() {
        let missed = probe.nmissed().unwrap_or(0);
        let _ = probe.unregister();
        let [entered, returned] = [&ENTERED, &RETURNED].map(|counter| counter.load(Ordering::Relaxed));
        println!("entered={entered} returned={returned} missed={missed}");
    }
}
