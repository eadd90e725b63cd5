//! `NAME=VALUE`: what it means for a module, in every host.

use crate::raw::parameter;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A parameter as the module declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// One of [`parameter`]'s kinds.
    pub kind: u32,
    /// Bytes that its value has room for.
    pub capacity: usize,
    /// Where its value is, as the host counts.
    pub at: u64,
}

/// What is to be written where, for arguments `NAME=VALUE` of a module that declares these parameters.
///
/// # Errors
///
/// When one is no assignment, is none of the module's, is given twice, or has no such value: in a sentence that names it.
///
/// ```
/// use kprobes::raw::parameter;
/// use kprobes::{Declared, settings};
/// let limit = Declared { name: "limit".into(), kind: parameter::UNSIGNED, capacity: 8, at: 0x40 };
/// assert_eq!(settings(&[limit.clone()], &["limit=3"]), Ok(vec![(0x40, vec![3, 0, 0, 0, 0, 0, 0, 0])]));
/// assert!(settings(&[limit], &["size=3"]).is_err());
/// ```
pub fn settings(declared: &[Declared], arguments: &[&str]) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let mut settings: Vec<(u64, Vec<u8>)> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let setting = setting(declared, argument)?;
        if settings.iter().any(|(at, _)| *at == setting.0) {
            return Err(format!("`{argument}`: its parameter is given twice"));
        }
        settings.push(setting);
    }
    Ok(settings)
}

fn setting(declared: &[Declared], argument: &str) -> Result<(u64, Vec<u8>), String> {
    let Some((name, value)) = argument.split_once('=') else {
        return Err(format!("`{argument}` is no parameter: NAME=VALUE is wanted"));
    };
    let Some(parameter) = declared.iter().find(|d| d.name == name) else {
        return Err(match declared {
            [] => format!("it has no parameter `{name}`: it has none at all"),
            _ => {
                let names: Vec<&str> = declared.iter().map(|d| d.name.as_str()).collect();
                format!("it has no parameter `{name}`; it has {}", names.join(", "))
            }
        });
    };
    Ok((parameter.at, bytes(parameter, value)?))
}

fn bytes(parameter: &Declared, value: &str) -> Result<Vec<u8>, String> {
    let wrong = |wanted: &str| Err(format!("{}={value}: {wanted} is wanted", parameter.name));
    let bytes = match parameter.kind {
        parameter::UNSIGNED => match unsigned(value) {
            Some(number) => number.to_le_bytes().to_vec(),
            None => return wrong("a number from 0 to 2^64-1, decimal or with 0x,"),
        },
        parameter::SIGNED => match signed(value) {
            Some(number) => number.to_le_bytes().to_vec(),
            None => return wrong("a number from -2^63 to 2^63-1, decimal or with 0x,"),
        },
        parameter::FLAG => match value {
            "y" | "Y" | "1" | "true" => vec![1],
            "n" | "N" | "0" | "false" => vec![0],
            _ => return wrong("y or n"),
        },
        parameter::TEXT => [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat(),
        kind => return Err(format!("its parameter `{}` is of the unknown kind {kind}", parameter.name)),
    };
    if bytes.len() > parameter.capacity {
        let room = parameter.capacity.saturating_sub(if parameter.kind == parameter::TEXT { 8 } else { 0 });
        return Err(format!("{}={value}: too long, it has room for {room} bytes", parameter.name));
    }
    Ok(bytes)
}

fn unsigned(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}

fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(magnitude) => 0i64.checked_sub_unsigned(unsigned(magnitude)?),
        None => i64::try_from(unsigned(text)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Vec<Declared> {
        let one = |name: &str, kind, capacity, at| Declared { name: name.into(), kind, capacity, at };
        vec![
            one("count", parameter::UNSIGNED, 8, 0x10),
            one("delta", parameter::SIGNED, 8, 0x18),
            one("loud", parameter::FLAG, 1, 0x20),
            one("path", parameter::TEXT, 12, 0x28),
        ]
    }

    #[test]
    fn values_become_the_bytes_of_their_kind() {
        let set = |argument: &str| setting(&declared(), argument).unwrap();
        assert_eq!(set("count=0xff"), (0x10, vec![0xff, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(set("count=18446744073709551615").1, [0xff; 8]);
        assert_eq!(set("delta=-1").1, [0xff; 8]);
        assert_eq!(set("delta=-9223372036854775808").1, [0, 0, 0, 0, 0, 0, 0, 0x80]);
        assert_eq!(set("loud=y"), (0x20, vec![1]));
        assert_eq!(set("loud=false").1, [0]);
        assert_eq!(set("path=a=b"), (0x28, vec![3, 0, 0, 0, 0, 0, 0, 0, b'a', b'=', b'b']));
        assert_eq!(set("path=").1, [0; 8]);
    }

    #[test]
    fn a_parameter_is_given_once() {
        assert!(settings(&declared(), &["count=1", "count=2"]).unwrap_err().contains("given twice"));
        assert_eq!(settings(&declared(), &["count=1", "loud=y"]).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_value_is_refused_with_the_parameter() {
        let cases =
            ["count=-1", "count=", "count=0x", "count=+1", "delta=9223372036854775808", "loud=maybe", "path=12345"];
        for case in cases {
            let why = setting(&declared(), case).unwrap_err();
            assert!(why.starts_with(case), "{why}");
        }
        assert!(setting(&declared(), "count").unwrap_err().contains("NAME=VALUE"));
        assert!(setting(&declared(), "size=1").unwrap_err().contains("it has count, delta, loud, path"));
        assert!(setting(&[], "size=1").unwrap_err().contains("none at all"));
    }
}
