//! A stack machine whose instructions are called through pointers.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

const NUMBER: u64 = 19;
/// A program that runs longer than this is wrong.
const MOST_STEPS: usize = 10_000_000;

/// The machine: two stacks and the place in the program.
struct Machine {
    values: Vec<u64>,
    returns: Vec<usize>,
    next: usize,
}

/// An instruction and its operand.
type Instruction = (fn(&mut Machine, u64) -> Option<()>, u64);

/// `fib(n)`: where it begins is 2.
const PROGRAM: &[Instruction] = &[
    (call, 2),
    (halt, 0),
    // fib: if n < 2 return n
    (duplicate, 0),
    (jump_below, 11),
    // fib(n - 1)
    (duplicate, 0),
    (subtract, 1),
    (call, 2),
    // n on top, fib(n - 2)
    (exchange, 0),
    (subtract, 2),
    (call, 2),
    (add, 0),
    (give_back, 0),
];

/// The number, computed by the program.
pub(super) fn run() -> Result<u64, String> {
    let mut machine = Machine { values: alloc::vec![NUMBER], returns: Vec::new(), next: 0 };
    for _ in 0..MOST_STEPS {
        let Some(&(run, operand)) = PROGRAM.get(machine.next) else {
            return machine.values.pop().ok_or_else(|| "no value is left".to_string());
        };
        machine.next += 1;
        run(&mut machine, operand).ok_or("the stack is empty")?;
    }
    Err("it does not end".to_string())
}

#[inline(never)]
fn call(machine: &mut Machine, target: u64) -> Option<()> {
    machine.returns.push(machine.next);
    machine.next = target as usize;
    Some(())
}

#[inline(never)]
fn give_back(machine: &mut Machine, _: u64) -> Option<()> {
    machine.next = machine.returns.pop()?;
    Some(())
}

#[inline(never)]
fn halt(machine: &mut Machine, _: u64) -> Option<()> {
    machine.next = PROGRAM.len();
    Some(())
}

#[inline(never)]
fn duplicate(machine: &mut Machine, _: u64) -> Option<()> {
    machine.values.push(*machine.values.last()?);
    Some(())
}

/// Takes the top, and jumps if it is below two.
#[inline(never)]
fn jump_below(machine: &mut Machine, target: u64) -> Option<()> {
    if machine.values.pop()? < 2 {
        machine.next = target as usize;
    }
    Some(())
}

#[inline(never)]
fn subtract(machine: &mut Machine, operand: u64) -> Option<()> {
    let top = machine.values.last_mut()?;
    *top = top.checked_sub(operand)?;
    Some(())
}

#[inline(never)]
fn exchange(machine: &mut Machine, _: u64) -> Option<()> {
    let last = machine.values.len().checked_sub(1)?;
    machine.values.swap(last, last.checked_sub(1)?);
    Some(())
}

#[inline(never)]
fn add(machine: &mut Machine, _: u64) -> Option<()> {
    let top = machine.values.pop()?;
    *machine.values.last_mut()? += top;
    Some(())
}
