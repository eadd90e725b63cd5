//! `NAME=VALUE`: what it means for a module.

use kprobes::raw::parameter;

/// A parameter as the module declares it.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) capacity: usize,
    /// Where its value is, from the module's beginning.
    pub(crate) offset: u64,
}

/// What is to be written where: from the module's beginning.
pub(crate) type Setting = (u64, Vec<u8>);

/// The bytes for an argument `NAME=VALUE` of a module that declares these parameters.
pub(crate) fn setting(declared: &[Declared], argument: &str) -> Result<Setting, String> {
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
    let bytes = bytes(parameter, value)?;
    Ok((parameter.offset, bytes))
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
        parameter::TEXT => [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat(),
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
        let one = |name: &str, kind, capacity, offset| Declared { name: name.into(), kind, capacity, offset };
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
