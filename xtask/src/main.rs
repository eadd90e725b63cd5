//! `cargo xtask VERB`: everything a contributor, and CI, does with this repository.

#![forbid(unsafe_code)]

// For the kernel's parts among the tests.
#[cfg(test)]
extern crate alloc;

mod bench;
mod ci;
mod guest;
mod kernel_bench;
mod layering;
mod qemu;
mod row;
mod setup;
mod shell;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  setup           install what the tests need; says which tests will be skipped without it
  test [--slow]   setup, then all tests (with --slow also those that take more than a minute)
  bench [--peers] [--keep] [OPTION…]
                  measure what a hit of a probe costs, beside the kernel's; with --peers install other tools and measure
                  them too, with --keep keep the results in benches/runs; --help shows the other options
  qemu [OPTION…]  build the demo kernel and boot it; --help shows the options
  kernel-tests    boot it and run the tests inside it, on 1, 2 and 4 processors
  guest           measure what Linux's kprobes cost, in instructions, in a guest of its own
  bench-kernel [--markdown]
                  measure what a hit costs in the demo kernel, in instructions, beside Linux's
  torture [OPTION…]
                  try to break probed programs; --short is what CI runs, --help shows the options
  models [--full] check the lock-free structures under loom and miri (--full: minutes)
  features        build and test the engine with each of its features off
  layering        check the dependency directions and the rules of the source tree
  ci              what CI runs: formatting, lints, documentation, layering, tests";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["setup"] => {
            setup::run();
            Ok(())
        }
        ["test"] => ci::test(false),
        ["test", "--slow"] => ci::test(true),
        ["bench", ref options @ ..] => bench::run_with(options),
        ["qemu", ref arguments @ ..] => return qemu::main(arguments),
        ["kernel-tests"] => qemu::checks::run(),
        ["guest"] => guest::run(),
        ["bench-kernel"] => kernel_bench::run(kernel_bench::Format::Text),
        ["bench-kernel", "--markdown"] => kernel_bench::run(kernel_bench::Format::Markdown),
        ["torture", ref options @ ..] => torture::run_with(options),
        ["models"] => ci::models(false),
        ["models", "--full"] => ci::models(true),
        ["features"] => ci::features(),
        ["layering"] => layering::run(),
        ["ci"] => ci::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
