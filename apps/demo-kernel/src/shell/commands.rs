//! The table of commands.

use super::{Command, expect_error, files, help, system};

/// Those that are not about probes.
pub(super) static COMMANDS: &[Command] = &[
    Command { name: "help", usage: "", help: "this list", run: help },
    Command { name: "ls", usage: "[PATH]", help: "what a directory holds", run: files::ls },
    Command { name: "cat", usage: "PATH", help: "a file's text", run: files::cat },
    Command { name: "write", usage: "PATH TEXT", help: "make a file below /tmp", run: files::write },
    Command {
        name: "symbol",
        usage: "NAME|ADDRESS",
        help: "what a name or an address stands for",
        run: system::symbol,
    },
    Command { name: "cpus", usage: "", help: "the processors", run: system::cpus },
    Command { name: "threads", usage: "", help: "the threads", run: system::threads },
    Command { name: "pages", usage: "", help: "walk the page tables: what is mapped how", run: system::pages },
    Command {
        name: "work",
        usage: "[THREADS [TIMES]]",
        help: "run the workload and check its answers",
        run: system::work,
    },
    Command { name: "expect-error", usage: "COMMAND", help: "fail unless the command fails", run: expect_error },
    Command {
        name: "halt",
        usage: "[CODE]",
        help: "end the machine; with failure if a command failed",
        run: system::halt,
    },
];
