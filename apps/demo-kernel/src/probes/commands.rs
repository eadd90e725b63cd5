//! Commands of the shell.

use super::{Demo, bench, fire, modules, stress, tests, toggle, with_control};
use crate::ksyms;
use crate::println;
use crate::shell::Command;
use alloc::format;
use alloc::string::String;
use host_bare::{Kernel, Stepping};

/// All of them.
pub(crate) static COMMANDS: &[Command] = &[
    bench::COMMAND,
    fire::COMMAND,
    toggle::COMMAND,
    Command { name: "trace", usage: "", help: "prints and takes the records", run: trace },
    Command { name: "kprobes", usage: "", help: "what is planted, how, and what it has counted", run: list },
    Command { name: "blacklist", usage: "", help: "functions that cannot be probed", run: blacklist },
    Command {
        name: "stepping",
        usage: "best|boosted|breakpoint|trap-flag|jump",
        help: "how new probes step",
        run: stepping,
    },
    Command {
        name: "stress",
        usage: "[SECONDS]",
        help: "probes come and go everywhere while the workload runs",
        run: stress::run,
    },
    Command {
        name: "test",
        usage: "[WORD]",
        help: "runs the tests, or those with a word in their name",
        run: tests::run,
    },
];

fn trace(_: &str) -> Result<(), String> {
    let records = with_control(|control| control.records())?;
    for record in records {
        println!("{}", record.text::<Demo>());
    }
    Ok(())
}

fn list(_: &str) -> Result<(), String> {
    let listed: alloc::vec::Vec<_> = with_control(|control| control.list().collect())?;
    for one in &listed {
        match modules::name_of(one.owner) {
            Some(module) => println!("{one} of {module}"),
            None => println!("{one}"),
        }
    }
    println!("{} probes", listed.len());
    Ok(())
}

fn blacklist(_: &str) -> Result<(), String> {
    let functions = ksyms::all().iter().filter(|s| s.is_function() && Demo::is_noprobe(s.address));
    let mut count = 0;
    for symbol in functions {
        println!("{:#x}-{:#x} {}", symbol.address, symbol.address + symbol.size, symbol.name);
        count += 1;
    }
    println!("{count} functions");
    Ok(())
}

fn stepping(argument: &str) -> Result<(), String> {
    let stepping = match argument {
        "best" => Stepping::Best,
        "boosted" => Stepping::Boosted,
        "breakpoint" => Stepping::SecondBreakpoint,
        "trap-flag" => Stepping::SingleStep,
        "jump" => Stepping::Jump,
        _ => return Err(format!("`{argument}` is none of best, boosted, breakpoint, trap-flag, jump")),
    };
    with_control(|control| control.set_stepping(stepping))
}
