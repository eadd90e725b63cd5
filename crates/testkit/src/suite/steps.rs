//! What cases are made of.

use super::program::{Function, Program, program};
use super::samples::{SAMPLES, Sample};
use super::world::{Counts, Record, World};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;
use isa::x86::{JUMP, JUMP_LEN};

/// Nothing, or what is not as it must be.
pub(super) type Outcome = Result<(), String>;

/// `got` must be `expected`.
pub(super) fn expect<T: PartialEq + Debug>(what: &str, got: T, expected: T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: {got:x?}, and not {expected:x?}")) }
}

/// Defines events that nothing is wrong with.
pub(super) fn define<L: AsRef<str>>(world: &mut dyn World, lines: &[L]) -> Outcome {
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    world.define(&lines).map_err(|refusal| {
        let line = lines.get(refusal.line).copied().unwrap_or("a line that there is not");
        format!("{line}: refused: {}", refusal.why)
    })
}

/// Removes an event.
pub(super) fn remove(world: &mut dyn World, event: &str) -> Outcome {
    remove_all(world, &[event])
}

/// Removes events at once.
pub(super) fn remove_all<E: AsRef<str>>(world: &mut dyn World, events: &[E]) -> Outcome {
    let events: Vec<&str> = events.iter().map(AsRef::as_ref).collect();
    world.remove(&events).map_err(|why| format!("{events:?} cannot be removed: {why}"))
}

/// Defines events, does something, and removes them.
pub(super) fn with<L: AsRef<str>>(
    world: &mut dyn World,
    lines: &[L],
    act: impl FnOnce(&mut dyn World) -> Outcome,
) -> Outcome {
    define(world, lines)?;
    act(world)?;
    let events: Vec<&str> = lines.iter().map(|line| event_of(line.as_ref())).collect();
    remove_all(world, &events)
}

/// The event that a line defines.
fn event_of(line: &str) -> &str {
    let head = line.split(' ').next().unwrap_or_default();
    head.split_once(':').map_or("", |(_, event)| event)
}

/// The event's counts.
pub(super) fn counts(world: &mut dyn World, event: &str) -> Result<Counts, String> {
    world.counts(event).ok_or_else(|| format!("there are no counts of {event}"))
}

/// The event was hit so often, and nothing was missed or lost.
pub(super) fn expect_hits(world: &mut dyn World, event: &str, hits: u64) -> Outcome {
    let got = counts(world, event)?;
    expect(
        &format!("counts of {event}"),
        Counts { returned: 0, unwound: 0, ..got },
        Counts { hits, ..Counts::default() },
    )
}

/// The return probe watched so many activations, which all have returned.
pub(super) fn expect_returns(world: &mut dyn World, event: &str, returned: u64) -> Outcome {
    let expected = Counts { hits: returned, returned, ..Counts::default() };
    expect(&format!("counts of {event}"), counts(world, event)?, expected)
}

/// Calls a function, which must give `result`.
pub(super) fn call(world: &mut dyn World, function: &str, arguments: [u64; 2], result: u64) -> Outcome {
    expect(&format!("{function}{arguments:?}"), world.call(function, arguments), result)
}

/// Calls what a sample says, which must give what it says.
pub(super) fn call_sample(world: &mut dyn World, sample: &Sample) -> Outcome {
    let got = world.call(sample.function, sample.arguments);
    let expected = sample.result.unwrap_or(got);
    expect(&format!("{}{:?}", sample.function, sample.arguments), got, expected)
}

/// Calls all samples.
pub(super) fn call_samples(world: &mut dyn World) -> Outcome {
    SAMPLES.iter().try_for_each(|sample| call_sample(world, sample))
}

/// The records since the last call: each event, and its values. None may have faulted.
pub(super) fn take(world: &mut dyn World) -> Result<Vec<(String, Vec<u64>)>, String> {
    let readable = |record: Record| {
        let values: Option<Vec<u64>> = record.values.iter().copied().collect();
        Ok((record.event.clone(), values.ok_or_else(|| format!("a value could not be read: {record:x?}"))?))
    };
    world.records().into_iter().map(readable).collect()
}

/// The records since the last call are these.
pub(super) fn expect_records(world: &mut dyn World, expected: &[(&str, &[u64])]) -> Outcome {
    let got = take(world)?;
    let expected: Vec<_> = expected.iter().map(|&(event, values)| (event.to_string(), values.to_vec())).collect();
    expect("records", got, expected)
}

/// Where the program's text is not what was assembled: functions, and offsets in them.
pub(super) fn differences(world: &mut dyn World) -> Vec<(&'static str, u64)> {
    let program = program();
    let mut found = Vec::new();
    for function in &program.functions {
        let mut now = alloc::vec![0; function.size as usize];
        world.text(world.address(function.name), &mut now);
        let differing = now.iter().zip(program.code_of(function)).zip(0u64..).filter(|((now, then), _)| now != then);
        found.extend(differing.map(|(_, at)| (function.name, at)));
    }
    found
}

/// No byte of the program's text differs from what was assembled.
pub(super) fn text_is_clean(world: &mut dyn World) -> Outcome {
    match differences(world).first() {
        None => Ok(()),
        Some((function, at)) => Err(format!("the text at {function}+{at:#x} is not what was assembled")),
    }
}

/// The first bytes of what stands in the program's text: a breakpoint, or a jump, which has several.
pub(super) fn standing(world: &mut dyn World) -> Vec<(&'static str, u64)> {
    let program = program();
    let mut found: Vec<(&'static str, u64)> = Vec::new();
    for (function, at) in differences(world) {
        // The first byte of a jump need not differ: what is displaced may be another jump.
        let instructions = program.find(function).map_or(&[][..], |function| &function.instructions);
        let near =
            instructions.iter().map(|i| i.offset).filter(|start| (*start..start + JUMP_LEN as u64).contains(&at));
        let jump = near.into_iter().find(|&start| {
            let mut byte = [0];
            world.text(world.address(function) + start, &mut byte);
            byte == [JUMP]
        });
        let place = (function, jump.unwrap_or(at));
        if found.last() != Some(&place) {
            found.push(place);
        }
    }
    found
}

/// Something stands at the first byte of this instruction that is not the instruction.
pub(super) fn expect_planted(world: &mut dyn World, function: &str, offset: u64) -> Outcome {
    let planted = standing(world).contains(&(function, offset));
    expect(&format!("{function}+{offset:#x} is planted"), planted, true)
}

/// A line for a probe on every instruction of the program, with the function and the number of each. Each prefix gives
/// events of its own.
pub(super) fn every_instruction(program: &Program, prefix: &str) -> Vec<(String, &'static str, usize)> {
    let lines_of = |f: &Function| {
        let (name, number) = (f.name, program.functions.iter().position(|other| other == f).unwrap_or(0));
        let line = |(i, at): (usize, u64)| (format!("p:{prefix}_{number}_{i} {name}+{at}"), name, i);
        f.instructions.iter().map(|i| i.offset).enumerate().map(line).collect::<Vec<_>>()
    };
    program.functions.iter().flat_map(lines_of).collect()
}

/// Which of so many things to try, in a world that repeats less: spread evenly.
pub(super) fn some_of(world: &dyn World, count: usize) -> impl Iterator<Item = usize> + use<> {
    let tried = world.repetitions(count).clamp(1, count.max(1));
    (0..tried).map(move |i| i * count / tried)
}

/// A line for a return probe on every function, with the function.
pub(super) fn every_return(program: &Program, prefix: &str) -> Vec<(String, &'static str)> {
    program.functions.iter().enumerate().map(|(i, f)| (format!("r:{prefix}_{i} {}", f.name), f.name)).collect()
}

/// The name of the event of a line that one of the above has made.
pub(super) fn name_of(line: &str) -> String {
    event_of(line).to_string()
}

/// Where the instruction with this number begins in its function.
pub(super) fn offset_of(function: &str, instruction: usize) -> Result<u64, String> {
    let program = program();
    let found = program.find(function).and_then(|f| f.instructions.get(instruction)).map(|i| i.offset);
    found.ok_or_else(|| format!("{function} has no instruction {instruction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_from_its_line() {
        assert_eq!(event_of("p:name place $arg1"), "name");
        assert_eq!(event_of("r1:name place"), "name");
        assert_eq!(event_of("nonsense"), "");
    }

    #[test]
    fn every_instruction_and_every_function_gets_an_event_of_its_own() {
        let program = program();
        let mut names: Vec<_> = every_instruction(&program, "i").iter().map(|(l, ..)| name_of(l)).collect();
        names.extend(every_return(&program, "r").iter().map(|(l, _)| name_of(l)));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        let instructions: usize = program.functions.iter().map(|f| f.instructions.len()).sum();
        assert_eq!(count, instructions + program.functions.len());
    }

    #[test]
    fn what_differs_is_said() {
        let why = expect("the answer", 1, 42).unwrap_err();
        assert_eq!(why, "the answer: 1, and not 2a");
        assert_eq!(expect("the answer", 42, 42), Ok(()));
    }
}
