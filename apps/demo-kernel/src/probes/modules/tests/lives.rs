//! Lives of modules, from beginning to end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{NAME, call, leaves_nothing, logged, refused, start, state, stop};
use crate::mm::{self, alias};
use crate::probes::modules::{FOLDER, MODULES, insert, read, reap, removal};
use crate::probes::tests::{check, counts, define, same};
use crate::{fs, ksyms};

/// Some are not for a kernel, and say so: then nothing is left of them either.
pub(super) fn every_module() -> Result<(), String> {
    let files = fs::list(FOLDER).map_err(|errno| format!("{FOLDER}: {errno}"))?;
    check(files.iter().any(|(name, _)| name == "exercise.ko"), || "exercise is not on the disk".into())?;
    let mut live = 0;
    for (file, _) in &files {
        let bytes = read(&format!("{FOLDER}/{file}")).map_err(|error| format!("{file}: {error}"))?;
        leaves_nothing(|| {
            logged(|| {
                if let Ok(name) = insert(&bytes, &[]) {
                    live += 1;
                    call(1, 2);
                    check(fs::read("/etc/motd").is_ok(), || format!("with {name}, files cannot be read"))?;
                    removal::remove(&name).map_err(|error| format!("{name}: {error}"))?;
                }
                Ok(())
            })
            .map(drop)
        })
        .map_err(|why| format!("{file}: {why}"))?;
    }
    check(live >= 2, || "none was inserted".into())
}

pub(super) fn output() -> Result<(), String> {
    let address = ksyms::lookup("modules_target").map_err(|error| error.to_string())?.address;
    let lines = logged(|| {
        start(&[])?;
        same("result", call(30, 12), 42)?;
        same("result", call(0, 1), 1)?;
        stop()
    })?;
    let name = crate::sched::current_name();
    let wanted = [
        format!("exercise: modules_target at {address:#x}"),
        format!("exercise: 31 12 text {name}"),
        "exercise: 30 returns 42".into(),
        format!("exercise: 1 1 text {name}"),
        "exercise: 2 hits, 1 returns, 2 counted".into(),
    ];
    same("output", lines, wanted.into())
}

/// Activations that are nested: each return finds the data of its entry.
pub(super) fn nested() -> Result<(), String> {
    /// Calls itself through the probed function's address.
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn modules_nested(depth: u64, _: u64, _: *const u8) -> u64 {
        match core::hint::black_box(depth) {
            1 => 1,
            deeper => modules_nested(deeper - 1, 0, core::ptr::null()) + core::hint::black_box(1),
        }
    }
    let lines = logged(|| {
        start(&["function=modules_nested"])?;
        same("depth", modules_nested(3, 0, core::ptr::null()), 3)?;
        stop()
    })?;
    let returns: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("exercise: ")).collect();
    let returns: Vec<&str> = returns.into_iter().filter(|line| line.contains(" returns ")).collect();
    same("returns", returns, ["1 returns 1", "2 returns 2", "3 returns 3"].into())
}

pub(super) fn parameters() -> Result<(), String> {
    let lines = logged(|| {
        start(&["add=0x100", "shift=-40", "function=modules_target", "hit=print", "leave=n"])?;
        call(1, 2);
        stop()
    })?;
    check(lines.iter().any(|line| line.starts_with("exercise: 258 2 ")), || format!("add is not set: {lines:?}"))?;
    check(lines.iter().any(|line| line == "exercise: 1 returns -37"), || format!("shift is not set: {lines:?}"))
}

pub(super) fn bad_parameters() -> Result<(), String> {
    let file = read(NAME).map_err(|error| error.to_string())?;
    let long = format!("hit={}", "x".repeat(300));
    let before = state();
    for (parameter, why) in [
        ("add", "`add` is no parameter: NAME=VALUE is wanted"),
        ("sub=1", "it has no parameter `sub`; it has function, hit, add, shift, give_up, leave"),
        ("=1", "it has no parameter ``;"),
        ("add=-1", "a number from 0 to 2^64-1"),
        ("add=18446744073709551616", "a number from 0"),
        ("add=+1", "a number from 0"),
        ("add=0x+1", "a number from 0"),
        ("add=", "a number from 0"),
        ("shift=9223372036854775808", "a number from -2^63"),
        ("shift=--1", "a number from -2^63"),
        ("leave=maybe", "y or n"),
        (&long, "too long, it has room for 248 bytes"),
    ] {
        refused(insert(&file, &[parameter]), why)?;
    }
    refused(insert(&file, &["add=1", "add=2"]), "given twice")?;
    same("what is left", state(), before)
}

pub(super) fn init_fails() -> Result<(), String> {
    let file = read(NAME).map_err(|error| error.to_string())?;
    leaves_nothing(|| {
        let lines = logged(|| refused(insert(&file, &["give_up=y"]), "init has returned -1"))?;
        check(lines.iter().any(|line| line.starts_with("exercise: ")), || "it has not said why".into())?;
        same("result", call(1, 2), 3)?;
        check(MODULES.lock().is_empty(), || "it is there".into())
    })?;
    let unknown = logged(|| refused(insert(&file, &["function=no_such_function"]), "init has returned -1"))?;
    check(unknown.iter().any(|line| line.contains("no such symbol")), || format!("it does not say why: {unknown:?}"))
}

pub(super) fn exit_leaves() -> Result<(), String> {
    leaves_nothing(|| {
        logged(|| {
            start(&["leave=y"])?;
            call(1, 2);
            stop()?;
            same("result", call(1, 2), 3)
        })
        .and_then(|lines| {
            same("the last line", lines.last().map(String::as_str), Some("exercise: 1 hits, 1 returns, 1 counted"))
        })
    })
}

pub(super) fn register_in_handler() -> Result<(), String> {
    let lines = logged(|| {
        start(&["hit=register"])?;
        call(1, 2);
        stop()
    })?;
    check(lines.iter().any(|line| line.contains("in init and exit only")), || format!("not refused: {lines:?}"))
}

pub(super) fn twice() -> Result<(), String> {
    let file = read(NAME).map_err(|error| error.to_string())?;
    logged(|| {
        start(&[])?;
        let again = refused(insert(&file, &[]), "exercise is inserted already");
        let result = call(1, 2);
        stop()?;
        same("result", result, 3)?;
        again
    })?;
    let gone = removal::remove(NAME).map_err(|error| error.to_string());
    same("removed again", gone, Err("there is no module exercise: lsmod lists them".into()))
}

pub(super) fn own_functions() -> Result<(), String> {
    leaves_nothing(|| {
        let lines = logged(|| {
            start(&["hit=print"])?;
            define(&["p:modules_own exercise:exercise_own value=$arg1"])?;
            // In a handler: so it is missed, and the instruction takes its effect.
            call(1, 2);
            let counted = counts("modules_own");
            stop()?;
            let counted = counted?;
            same("hits and misses", (counted.hits, counted.missed), (0, 1))
        })?;
        check(lines.iter().any(|line| line.starts_with("exercise: 2 2 ")), || format!("wrong output: {lines:?}"))?;
        let told = "modules_own: removed, its place was in exercise";
        check(lines.iter().any(|line| line == told), || format!("it is not said that the probe went: {lines:?}"))?;
        check(counts("modules_own").is_err(), || "the probe is there".into())?;
        // Its records, if there are any, keep its number.
        crate::probes::with_control(|control| control.records()).map(drop)
    })
}

pub(super) fn protection() -> Result<(), String> {
    let before = mm::audit().executable;
    logged(|| start(&["hit=count"]))?;
    let text = MODULES.lock().first().map(|module| module.memory.text()).ok_or("it is not there")?;
    let audit = mm::audit();
    let known = (alias::is_text(text.start), ksyms::at(text.start).is_some());
    logged(stop)?;
    let after = mm::audit();
    same("writable and executable", audit.writable_and_executable + audit.writable_aliases_of_executable, 0)?;
    same("executable pages", audit.executable - before, (text.end - text.start) / mm::PAGE)?;
    same("known as text", known, (true, true))?;
    same("executable pages afterwards", after.executable, before)?;
    check(!alias::is_text(text.start), || "it is still text".into())
}

pub(super) fn fault() -> Result<(), String> {
    leaves_nothing(|| ends(&["hit=fault"], "kprobes: a handler has faulted at "))
}

pub(super) fn panic() -> Result<(), String> {
    leaves_nothing(|| ends(&["hit=panic"], "exercise: panicked at "))
}

/// A module whose handler does not come back, and has said something.
fn ends(parameters: &[&str], says: &str) -> Result<(), String> {
    let lines = logged(|| {
        start(parameters)?;
        same("result of the call that faults", call(20, 22), 42)?;
        // Or gone: `klogd` may have been there.
        let silent = MODULES.lock().first().is_none_or(|module| module.is_silenced());
        check(silent, || "its probes are not off".into())?;
        for round in 0..10 {
            same("result afterwards", call(round, 1), round + 1)?;
        }
        reap();
        check(MODULES.lock().is_empty(), || "it is still there".into())?;
        same("result without it", call(1, 2), 3)
    })?;
    check(lines.iter().any(|line| line.starts_with(says)), || format!("nothing says `{says}`: {lines:?}"))?;
    let faults = lines.iter().filter(|line| line.starts_with("kprobes: a handler has faulted at ")).count();
    same("faults that are told", faults, 1)?;
    let told = "exercise: removed, since a handler of it has faulted";
    check(lines.iter().any(|line| line == told), || format!("its end is not told: {lines:?}"))?;
    let place = lines.iter().find(|line| line.starts_with("kprobes: ")).ok_or("no place")?;
    check(place.contains("+0x"), || format!("the place has no name: {place}"))?;
    check(stop().is_err(), || "it can be removed again".to_string())
}
