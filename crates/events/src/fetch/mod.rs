//! Fetch programs: an argument's expression as bytes that can be executed where the probe is hit.
//!
//! A program is a sequence of operations with their operands behind them, all of it little endian, unaligned and free of
//! addresses of its own, so it may lie anywhere in the target. There is one accumulator. Loads set it, [`DEREF`] replaces
//! it by the memory it points to, and a store writes one argument to the record and makes ready for the next:
//!
//! | Operation | Operands | Does |
//! |---|---|---|
//! | [`REGISTER`] | number | accumulator = register |
//! | [`ARGUMENT`] | number | accumulator = function argument, from 1 |
//! | [`RETURN_VALUE`] | | accumulator = return value |
//! | [`IMMEDIATE`] | 8 bytes | accumulator = number |
//! | [`DEREF`] | offset, 8 bytes | accumulator = 8 bytes at accumulator + offset, or a fault |
//! | [`STORE_NUMBER`] | size, left, right | stores the accumulator |
//! | [`STORE_MEMORY`] | size, left, right, count, offset | stores a number (count 0) or an array of them from memory |
//! | [`STORE_STRING`] | offset, reserve | stores the string at accumulator + offset |
//! | [`STORE_STRINGS`] | offset, reserve, count | stores the strings that the pointers at accumulator + offset point to |
//! | [`STORE_COMM`] | | stores the thread's name |
//! | [`STORE_TEXT`] | length, bytes | stores the program's own text |
//!
//! A number is cut from its container by two shifts, `left` then `right`, which is how Linux does bit fields. `reserve`
//! is how many bytes the arguments that follow need at least: a long string leaves them that.

#[cfg(feature = "text")]
pub mod compile;
pub mod run;

/// Loads a register.
pub const REGISTER: u8 = 1;
/// Loads a function argument.
pub const ARGUMENT: u8 = 2;
/// Loads the return value.
pub const RETURN_VALUE: u8 = 3;
/// Loads a number.
pub const IMMEDIATE: u8 = 4;
/// Replaces the accumulator by the memory it points to.
pub const DEREF: u8 = 5;
/// Stores the accumulator.
pub const STORE_NUMBER: u8 = 16;
/// Stores numbers from memory.
pub const STORE_MEMORY: u8 = 17;
/// Stores a string from memory.
pub const STORE_STRING: u8 = 18;
/// Stores strings that an array of pointers in memory points to.
pub const STORE_STRINGS: u8 = 19;
/// Stores the thread's name.
pub const STORE_COMM: u8 = 20;
/// Stores text.
pub const STORE_TEXT: u8 = 21;
