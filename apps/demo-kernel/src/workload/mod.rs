//! Work with known answers, to prove that probing it changes nothing.
//!
//! Many small functions, called in many ways: in loops, recursively, through pointers, by several threads at once, under
//! locks, with page faults. The answers are known from elsewhere: from mathematics, a standard's test vector, or another
//! program's result on the same file. One that is wrong is an error that tells both.

mod checksums;
mod files;
mod interpreter;
mod maps;
mod memory;
mod pipeline;
mod primes;
mod queens;
mod sha256;
mod sort;
mod text;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::arch::time;
use crate::lock::IrqLock;
use crate::sched;

/// A piece of work.
struct Case {
    name: &'static str,
    run: fn() -> Result<u64, String>,
    /// The answer, and why it is known.
    expected: u64,
}

const CASES: &[Case] = &[
    // The first eight bytes of what sha256sum says of disk/data/words.
    Case { name: "sha256", run: sha256::run, expected: 0x18f2_f1bc_5815_5bc6 },
    // The check value of CRC-32/ISO-HDLC, and RFC 1950's example of Adler-32.
    Case { name: "checksums", run: checksums::run, expected: 0xcbf4_3926_11e6_0398 },
    // π(200000).
    Case { name: "primes", run: primes::run, expected: 17_984 },
    // Quadratic residues modulo the prime 3001, zero apart: (3001 - 1) / 2, from two kinds of map.
    Case { name: "maps", run: maps::run, expected: 1500 << 32 | 1500 },
    // The digits of all numbers below 10000: 4 × 45 × 1000.
    Case { name: "text", run: text::run, expected: 180_000 },
    // Three sorts of the numbers below 3000, weighed by place: 3 × the sum of i².
    Case { name: "sort", run: sort::run, expected: 3 * (2999 * 3000 * 5999 / 6) },
    // Nine queens.
    Case { name: "queens", run: queens::run, expected: 352 },
    // The 19th Fibonacci number, computed by recursion in an interpreter.
    Case { name: "interpreter", run: interpreter::run, expected: 4181 },
    // The numbers 1 to 2000, through a queue from two threads to two others.
    Case { name: "pipeline", run: pipeline::run, expected: 2000 * 2001 / 2 },
    // Bytes written and read back.
    Case { name: "files", run: files::run, expected: files::BYTES },
    // Pages that were empty when they were first touched.
    Case { name: "memory", run: memory::run, expected: memory::PAGES },
];

/// What a run of the workload was like.
#[derive(Debug)]
pub(crate) struct Report {
    /// Each piece with its time in microseconds.
    pub(crate) cases: Vec<(&'static str, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, micros) in &self.cases {
            writeln!(f, "{name:12} right {:>6}.{:03} ms", micros / 1000, micros % 1000)?;
        }
        write!(f, "{} computations, all right", self.cases.len())
    }
}

/// Does all of it.
///
/// # Errors
///
/// At the first wrong answer.
pub(crate) fn run() -> Result<Report, String> {
    let cases = CASES.iter().map(measure).collect::<Result<_, _>>()?;
    Ok(Report { cases })
}

/// What threads that run the workload at the same time have found: the first error there was.
static CROWD_ERROR: IrqLock<Option<String>> = IrqLock::new(None);

/// Does all of it in several threads at once, in each so many times.
///
/// # Errors
///
/// At a wrong answer of any of them.
pub(crate) fn run_in_threads(threads: usize, times: usize) -> Result<(), String> {
    let threads: Vec<_> = (0..threads).map(|_| sched::spawn("worker", run_times, times)).collect();
    threads.into_iter().for_each(sched::join);
    CROWD_ERROR.lock().take().map_or(Ok(()), Err)
}

fn run_times(times: usize) {
    if let Err(error) = (0..times).try_for_each(|_| run().map(drop)) {
        CROWD_ERROR.lock().get_or_insert(error);
    }
}

#[inline(never)]
fn measure(case: &Case) -> Result<(&'static str, u64), String> {
    let Case { name, run, expected } = *case;
    let start = time::now_ns();
    let answer = run().map_err(|error| format!("{name}: {error}"))?;
    let micros = (time::now_ns() - start) / 1000;
    if answer != expected {
        return Err(format!("{name}: the answer is {answer:#x} and should be {expected:#x}"));
    }
    Ok((name, micros))
}

/// Numbers that look random and are the same each time (Lehmer's generator, Park and Miller's constants).
struct Lehmer(u64);

impl Lehmer {
    const fn new() -> Self {
        Self(1)
    }

    #[inline(never)]
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 as usize % limit
    }
}
