//! A probe on every instruction boundary: of one function of all instruction kinds, and of two hundred functions of libc.
//!
//! Beside the program's output, control flow is the oracle. An instruction that always falls through lets its
//! successor be hit at least as often; exactly as often if nothing else leads there.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::disassembly::{Disassembly, Function, functions, imports};
use crate::harness::run::run;
use crate::harness::trace::{
    assert_same_run, at_file, bare, command, definitions as definitions_file, kprobe, trace_within,
};
use crate::harness::{need, program};

const LIMIT: Duration = Duration::from_secs(120);

/// The event on one boundary.
fn event(function: &Function, address: u64) -> String {
    format!("{}_{:x}", function.name, address - function.address)
}

fn definitions(object: &str, function: &Function, code: &Disassembly) -> Vec<String> {
    let line = |address: u64| {
        let offset = address - function.address;
        format!("p:{} {object}{}+0x{offset:x}", event(function, address), function.name)
    };
    code.body(function).into_iter().map(|instruction| line(instruction.address)).collect()
}

/// Checks a function's hits against its control flow; gives the number of boundaries that were hit.
fn check_flow(hits: impl Fn(u64) -> u64, function: &Function, code: &Disassembly) -> Result<usize, String> {
    let body = code.body(function);
    let direct = code.has_only_direct_jumps(function);
    for pair in body.windows(2).filter(|pair| pair[0].falls_through()) {
        let (before, after) = (hits(pair[0].address), hits(pair[1].address));
        let only_way = direct && !code.is_target(pair[1].address);
        if after < before || (only_way && after > before) {
            return Err(format!("{}: {:?} hit {before}, {:?} hit {after}", function.name, pair[0], pair[1]));
        }
    }
    Ok(body.iter().filter(|instruction| hits(instruction.address) > 0).count())
}

/// The verdicts of `kprobe check` on definitions: how many of each, and the events that are refused, since their
/// instruction cannot be executed anywhere else (`hlt`).
fn refused(program: &Path, probes: &[String]) -> BTreeSet<String> {
    let lines = definitions_file(probes);
    let mut command = kprobe();
    command.args(["check", "--placement", "breakpoint", "-e"]).arg(at_file(lines.path())).arg(program);
    let text = run(command).stdout;
    let mut table: HashMap<&str, usize> = HashMap::new();
    let mut refused = BTreeSet::new();
    for (event, verdict) in text.lines().filter_map(|line| line.split_once(": ")) {
        let kinds = ["breakpoint, boosted", "breakpoint, emulated", "refused"];
        let kind = kinds.into_iter().find(|kind| verdict.contains(kind)).unwrap_or("other");
        *table.entry(kind).or_default() += 1;
        if kind == "refused" {
            println!("{event}: {verdict}");
            refused.insert(event.to_owned());
        }
    }
    println!("{} boundaries: {table:?}", probes.len());
    refused
}

/// Probes every boundary of `chosen` at once, and compares output, status and flow.
fn probe_all(program: &Path, file: &Path, object: &str, chosen: &[Function], code: &Disassembly) -> usize {
    let command = command(program, &[]);
    let alone = bare(&command);
    let mut probes: Vec<_> = chosen.iter().flat_map(|function| definitions(object, function, code)).collect();
    let refused = refused(file, &probes);
    let event_of = |probe: &String| probe[2..].split(' ').next().unwrap_or_default().to_owned();
    probes.retain(|probe| !refused.contains(&event_of(probe)));
    let trace = trace_within(LIMIT, &["-c"], &probes, &command);
    assert_same_run(&alone, &trace.run);
    assert_eq!(trace.summaries.len(), probes.len(), "{}", trace.run.stderr);
    let hits: HashMap<_, _> =
        trace.summaries.iter().map(|summary| (summary.event.as_str(), summary.hits + summary.missed)).collect();
    let of = |function: &Function| {
        check_flow(|address| hits.get(event(function, address).as_str()).copied().unwrap_or(0), function, code)
            .unwrap_or_else(|wrong| panic!("{wrong}"))
    };
    chosen.iter().map(of).sum()
}

#[test]
fn one_hit_too_few_or_too_many_is_noticed() {
    let path = need!(program("victim.pie"));
    let all = functions(&path, false);
    let leaf = all.iter().find(|function| function.name == "leaf").expect("the program has it");
    let code = Disassembly::of(&path);
    let second = code.body(leaf)[1].address;
    let hits = |of_second: u64| move |address| if address == second { of_second } else { 5 };
    assert!(check_flow(hits(5), leaf, &code).is_ok());
    assert!(check_flow(hits(4), leaf, &code).is_err());
    assert!(check_flow(hits(6), leaf, &code).is_err());
}

#[test]
fn every_boundary_of_a_function_of_all_kinds() {
    let path = need!(program("instructions"));
    let all = functions(&path, false);
    let named = |name: &str| all.iter().find(|function| function.name == name).expect("the program has it").clone();
    let chosen = ["instructions", "helper", "pops"].map(named);
    let hit = probe_all(&path, &path, "", &chosen, &Disassembly::of(&path));
    assert!(hit > 100, "only {hit} boundaries were hit");
}

#[test]
fn each_boundary_of_a_function_of_all_kinds_alone() {
    let path = need!(program("instructions"));
    let all = functions(&path, false);
    let function = all.iter().find(|function| function.name == "instructions").expect("the program has it");
    let code = Disassembly::of(&path);
    let command = command(&path, &[]);
    let alone = bare(&command);
    // Alone a probe may be placed in another way (a jump) than among neighbours: every third boundary, for time.
    for probe in definitions("", function, &code).iter().step_by(3) {
        let trace = trace_within(LIMIT, &["-c"], &[probe], &command);
        assert_eq!(alone.stdout, trace.run.stdout, "{probe}: {}", trace.run.stderr);
        assert_eq!(alone.status, trace.run.status, "{probe}: {}", trace.run.stderr);
    }
}

fn libc_of(program: &Path) -> PathBuf {
    let output = std::process::Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("libc.so.6")).expect("the program needs libc");
    line.split_ascii_whitespace().nth(2).expect("ldd names the file").into()
}

/// The functions of libc that the program calls, one for each address.
fn called_functions(program: &Path, libc: &Path) -> Vec<Function> {
    let called = imports(program);
    let mut addresses = BTreeSet::new();
    let all = functions(libc, true).into_iter();
    all.filter(|function| called.contains(&function.name) && function.size > 0 && addresses.insert(function.address))
        .collect()
}

#[test]
fn every_boundary_of_two_hundred_libc_functions() {
    let path = need!(program("libc"));
    let libc = libc_of(&path);
    let chosen = called_functions(&path, &libc);
    assert!(chosen.len() >= 200, "the program calls only {} functions of libc", chosen.len());
    let code = Disassembly::of(&libc);
    // In four runs: where a few functions misbehave, their neighbours in the report are few.
    let hit: usize =
        chosen.chunks(chosen.len().div_ceil(4)).map(|part| probe_all(&path, &libc, "libc.so.6:", part, &code)).sum();
    assert!(hit > 3000, "only {hit} boundaries were hit");
}
