//! Programs that start other programs: the children run unharmed, and with `-f` are probed too.

use std::path::Path;

use crate::harness::memory::changed_text;
use crate::harness::trace::{assert_same_run, bare, command};
use crate::harness::{assert_exact, counts, need, program, trace};

const PROBES: &[&str] = &["p:work work"];

fn unharmed(name: &str, scenario: &str) {
    let path = need!(program(name));
    assert_exact(&path, &[scenario], &["work"]);
}

/// With `-f` the hits of all processes that run the program are counted.
fn followed(name: &str, arguments: &[&str], all: u64) {
    let path = need!(program(name));
    let command = command(&path, arguments);
    let alone = bare(&command);
    let trace = trace(&["-c", "-f"], PROBES, &command);
    assert_same_run(&alone, &trace.run);
    let expected = counts("all", &alone.stdout).get("work").copied().unwrap_or(all);
    assert_eq!(trace.summary("work").hits, expected, "{:?}", trace.summaries);
}

#[test]
fn spawned_children_live() {
    unharmed("children", "spawn_dup2");
}

#[test]
fn spawned_children_live_with_musl() {
    unharmed("children.musl", "spawn_dup2");
}

#[test]
fn spawned_children_live_with_dup2_probed() {
    let path = need!(program("children"));
    let command = command(&path, &["spawn_dup2"]);
    let alone = bare(&command);
    let probes = ["p:work work", "p:dup2 libc.so.6:dup2", "p:sigaction libc.so.6:sigaction"];
    let trace = trace(&["-c"], &probes, &command);
    assert_same_run(&alone, &trace.run);
    assert_eq!(trace.summary("work").hits, 20);
}

#[test]
fn vforked_children_execute() {
    unharmed("children", "vfork_exec");
}

#[test]
fn vforked_children_execute_with_exec_probed() {
    let path = need!(program("children"));
    let command = command(&path, &["vfork_exec"]);
    let alone = bare(&command);
    let trace = trace(&["-c"], &["p:work work", "p:execvp libc.so.6:execvp", "r:vfork_ret libc.so.6:execve"], &command);
    assert_same_run(&alone, &trace.run);
    assert_eq!(trace.summary("work").hits, 20);
}

#[test]
fn forked_children_run_unharmed_and_uncounted() {
    unharmed("children", "fork_calls");
}

#[test]
fn commands_of_system_run() {
    unharmed("children", "system");
}

#[test]
fn forked_children_are_followed() {
    followed("children", &["fork_calls"], 0);
}

#[test]
fn forked_children_are_followed_with_musl() {
    followed("children.musl", &["fork_calls"], 0);
}

#[test]
fn spawned_children_are_followed() {
    followed("children", &["spawn_dup2"], 0);
}

#[test]
fn a_chain_of_execs_is_followed() {
    followed("children", &["exec_chain", "4"], 50);
}

#[test]
fn a_chain_of_execs_is_left_alone_without_following() {
    let path = need!(program("children"));
    let command = command(&path, &["exec_chain", "4"]);
    let trace = trace(&["-c"], PROBES, &command);
    assert_same_run(&bare(&command), &trace.run);
    assert_eq!(trace.summary("work").hits, 10);
}

const SHELL: &str = "trap 'echo trapped' TRAP; for i in 1 2 3; do (echo sub $i; exit $i); echo $?; done; \
    kill -TRAP $$; x=$(echo inner | cat); echo $x; true | false | true; echo done; exit 9";

/// A shell with subshells, pipes and a trap on SIGTRAP, its heap probed.
fn shell(options: &[&str]) {
    let shell = Path::new("/bin/bash");
    if !shell.exists() {
        return crate::harness::skipped("no bash");
    }
    let command = command(shell, &["-c", SHELL]);
    let alone = bare(&command);
    assert_eq!(alone.status, 9);
    let trace = trace(
        options,
        &["p:open libc.so.6:open", "p:dup2 libc.so.6:dup2", "p:sigprocmask libc.so.6:sigprocmask"],
        &command,
    );
    assert_same_run(&alone, &trace.run);
}

#[test]
fn a_shell_with_subshells_and_its_own_trap_runs() {
    shell(&["-c"]);
}

#[test]
fn a_shell_with_subshells_and_its_own_trap_is_followed() {
    shell(&["-c", "-f"]);
}

/// Children that outlive their parent and the trace: their copies of the text are as they were.
fn orphans_are_clean(options: &[&str]) {
    const SHELL: &str = "for i in 1 2 3; do (read -t 20 < <(sleep 20)) >/dev/null 2>&1 & echo pid $!; done; sleep 0.3";
    let command = command("/bin/bash", &["-c", SHELL]);
    let trace = trace(options, &["p:malloc libc.so.6:malloc"], &command);
    let pids = trace.run.stdout.lines().filter_map(|line| line.strip_prefix("pid ")?.parse::<u32>().ok());
    let pids: Vec<u32> = pids.collect();
    assert_eq!(pids.len(), 3, "{}{}", trace.run.stdout, trace.run.stderr);
    let changed: Vec<_> = pids.iter().flat_map(|&pid| changed_text(pid)).collect();
    assert_eq!(changed, []);
}

#[test]
fn children_that_outlive_an_unfollowed_trace_have_their_own_text() {
    orphans_are_clean(&["-c"]);
}

#[test]
fn children_that_outlive_a_followed_trace_have_their_own_text() {
    orphans_are_clean(&["-c", "-f", "--duration", "1"]);
}

/// A debugger under our probes: its child stops for the debugger, not for our breakpoints.
fn debugger_works(options: &[&str]) {
    if !Path::new("/usr/bin/gdb").exists() {
        return crate::harness::skipped("no gdb");
    }
    let command = command("/usr/bin/gdb", &["-nx", "-batch", "-ex", "run", "/bin/true"]);
    let trace = trace(options, &["p:malloc libc.so.6:malloc"], &command);
    assert!(trace.run.stdout.contains("exited normally"), "{}{}", trace.run.stdout, trace.run.stderr);
    assert!(trace.summary("malloc").hits > 0);
}

#[test]
fn a_debugger_under_probes_runs_its_target() {
    debugger_works(&["-c"]);
}

#[test]
fn a_followed_debugger_runs_its_target() {
    debugger_works(&["-c", "-f"]);
}
