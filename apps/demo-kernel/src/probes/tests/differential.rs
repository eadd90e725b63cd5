//! The processor is the oracle: an instruction in place, and the same one probed, end alike from any state.
//!
//! Every form of instruction is executed where nobody has touched it, and then with a probe that is asked to step in
//! each of the four ways: as it is best, boosted, by a second breakpoint, by the trap flag. It is the engine itself
//! that is tested, with its traps, tables and slots, on the processor the kernel runs on. Compared are all registers,
//! the flags to the bit (those that the manual leaves undefined too: both runs are of the same processor), where
//! execution goes on, memory, the stack, and if there is a fault its vector, error code and address. Interrupts are on
//! in half of the states, and the timer ticks meanwhile.
//!
//! What is not compared: time stamps and what differs from processor to processor (`rdtsc`, `cpuid`, `gs`); vector
//! registers, which this kernel does not use and its traps do not save; port I/O, `hlt` and loads of control and
//! descriptor registers, which have effects besides; memory below `rsp`, and what an instruction newly allocates there;
//! locked accesses across their size (see `forms::data`). [`corpus`] says which of its lines do not run here.
//!
//! A case is a form, a state and a way that was really taken: where a way that is asked for would come to the best one
//! again (a boosted instruction boosted, an emulated one with a second breakpoint) it is not asked for.
//!
//! States come from seeds, and seeds from the form's bytes: a difference is shown with everything it takes to repeat
//! it, and running the test again repeats it. The controls show that a wrong instruction, slot or flag is seen.

mod bench;
mod compare;
mod controls;
mod corpus;
mod form;
mod forms;
mod random;
mod state;

use super::{Test, check};
use crate::arch::{cpu, time};
use crate::println;
use alloc::format;
use alloc::string::String;
use compare::{HONEST, Summary};

pub(super) const TESTS: &[Test] = &[
    Test { name: "instructions_end_alike_in_place_and_probed_five_ways", run: instructions },
    Test { name: "control_every_field_is_compared", run: controls::every_field },
    Test { name: "control_another_instruction_differs", run: controls::another_instruction },
    Test { name: "control_a_wrong_slot_differs", run: controls::wrong_slot },
    Test { name: "control_a_wrong_flag_differs", run: controls::wrong_flag },
];

/// States for each form.
const STATES: u64 = 32;
/// Fewer comparisons than these show too little.
const WANTED: u64 = 100_000;

fn instructions() -> Result<(), String> {
    let mut forms = forms::all();
    forms.extend(corpus::all());
    let ticks = || (0..cpu::count()).map(|id| cpu::block(id).ticks.load(core::sync::atomic::Ordering::Relaxed)).sum();
    let (started, ticked): (u64, u64) = (time::now_ns(), ticks());
    let summary = compare::compare(&forms, STATES, &HONEST)?;
    print(&summary, forms.len(), (time::now_ns() - started) / 1_000_000, ticks() - ticked);
    if let Some(difference) = summary.differences.first() {
        summary.differences.iter().skip(1).for_each(|difference| println!("  {difference}"));
        return Err(format!("{} of {} cases differ: {difference}", summary.failed, summary.cases));
    }
    let refused = || format!("{} forms are refused: {:?}", summary.refused.len(), summary.refused.first());
    check(summary.refused.is_empty(), refused)?;
    check(summary.cases >= WANTED, || format!("only {} cases", summary.cases))?;
    check(summary.by_way.iter().all(|&cases| cases > 0), || format!("a way was not taken: {:?}", summary.by_way))
}

fn print(summary: &Summary, forms: usize, milliseconds: u64, ticks: u64) {
    let Summary { cases, by_way: [emulated, boosted, second, single, jump], faults, interruptible, .. } = summary;
    println!(
        "  {cases} cases: {forms} forms, {STATES} states each, in place and probed, in {milliseconds} ms, {ticks} timer interrupts"
    );
    println!(
        "  {emulated} emulated, {boosted} boosted, {second} by second breakpoint, {single} by trap flag, {jump} by jump"
    );
    println!("  {faults} have faulted, {interruptible} had interrupts on");
    println!("  {:<12} forms, planted: emulated boosted second trap-flag jump", "class");
    for class in &summary.classes {
        let [emulated, boosted, second, single, jump] = class.planted;
        println!(
            "  {:<12} {:>5} {emulated:>18} {boosted:>7} {second:>6} {single:>9} {jump:>4}",
            class.name, class.forms
        );
    }
}
