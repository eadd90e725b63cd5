//! Parameters of modules: `NAME=VALUE`, as a command has them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kprobes::raw::parameter;

use super::descriptor::Slot;
use super::error::Error;

/// What is to be written where, for each argument.
///
/// # Errors
///
/// When one is no assignment, or is none of the module's, is given twice, or has no such value.
pub(super) fn values(slots: &[Slot], arguments: &[&str]) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let mut values: Vec<(u64, Vec<u8>)> = Vec::new();
    for argument in arguments {
        let (name, text) = argument
            .split_once('=')
            .ok_or_else(|| Error::Parameter(format!("{argument} sets no parameter: NAME=VALUE does")))?;
        let slot = slots.iter().find(|slot| slot.name == name).ok_or_else(|| unknown(name, slots))?;
        if values.iter().any(|(at, _)| *at == slot.value) {
            return Err(Error::Parameter(format!("{name} is set twice")));
        }
        let value = value(slot, text).map_err(|wanted| Error::Parameter(format!("{name}={text}: {wanted}")))?;
        values.push((slot.value, value));
    }
    Ok(values)
}

fn unknown(name: &str, slots: &[Slot]) -> Error {
    let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    Error::Parameter(match names.as_slice() {
        [] => format!("there is no parameter {name}: the module has none"),
        _ => format!("there is no parameter {name}; there are {}", names.join(", ")),
    })
}

/// The bytes of a value, or what kind of value is wanted.
fn value(slot: &Slot, text: &str) -> Result<Vec<u8>, String> {
    match slot.kind {
        parameter::UNSIGNED => Ok(unsigned(text).ok_or("a number from 0 to 2^64 - 1 is wanted")?.to_le_bytes().into()),
        parameter::SIGNED => Ok(signed(text).ok_or("a number from -2^63 to 2^63 - 1 is wanted")?.to_le_bytes().into()),
        parameter::FLAG => Ok([u8::from(flag(text).ok_or("y or n is wanted")?)].into()),
        _ => {
            let most = slot.room - 8;
            if text.len() > most {
                return Err(format!("a text of at most {most} bytes is wanted"));
            }
            Ok([&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
        }
    }
}

fn unsigned(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // `from_str_radix` takes a sign.
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) => 0_i64.checked_sub_unsigned(unsigned(digits)?),
        None => unsigned(text)?.try_into().ok(),
    }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "y" | "1" | "true" => Some(true),
        "n" | "0" | "false" => Some(false),
        _ => None,
    }
}
