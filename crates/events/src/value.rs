//! Records back to values.

use alloc::vec::Vec;

use crate::{
    definition::{Base, Type, Width},
    fetch::compile::Schema,
    record::{CUT_STRING, FAULT, MIXED, STRING, VALUE},
};

/// One recorded argument.
///
/// ```
/// use events::Value;
///
/// assert_eq!(Value::Signed(-1).number(), Some(u64::MAX));
/// assert_eq!(Value::Char(b'A').number(), Some(0x41));
/// assert_eq!(Value::Fault.number(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// Of type `u8` to `u64`.
    Unsigned(u64),
    /// Of type `s8` to `s64`.
    Signed(i64),
    /// Of type `x8` to `x64`.
    Hex(u64),
    /// Of type `char`.
    Char(u8),
    /// A bit field.
    Bits(u64),
    /// Of type `symbol`: an address.
    Symbol(u64),
    /// Of type `symstr`: an address too.
    SymbolString(u64),
    /// Of type `string` or `ustring`.
    Str {
        /// Its bytes, without the NUL.
        bytes: Vec<u8>,
        /// Whether there was more than the record had room for.
        truncated: bool,
    },
    /// Of type `T[N]`.
    Array(Vec<Self>),
    /// Could not be read.
    Fault,
    /// Was not recorded: the record was full.
    Truncated,
}

impl Value {
    /// A number as it would be in a register, sign-extended; `None` for what is no number or could not be read.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(n) | Self::Hex(n) | Self::Bits(n) | Self::Symbol(n) | Self::SymbolString(n) => Some(n),
            Self::Signed(n) => Some(n.cast_unsigned()),
            Self::Char(n) => Some(n as u64),
            Self::Str { .. } | Self::Array(_) | Self::Fault | Self::Truncated => None,
        }
    }
}

/// Reads a payload that [`run`](crate::run()) wrote by the program that `schema` belongs to: one value for each argument.
///
/// Bytes that make no sense give [`Value::Truncated`] for that argument and those after it.
///
/// ```
/// use events::record::{FAULT, VALUE};
/// use events::{Base, Field, Schema, Type, Value, Width, decode};
///
/// let field = |name: &str, base| Field { name: name.into(), ty: Type { base, count: None } };
/// let number = Base::Signed(Width::W32);
/// let schema = Schema { fields: vec![field("fd", number), field("path", Base::String), field("flags", number)] };
///
/// // `fd` was read, `path` could not be, and then the record was full.
/// let values = decode(&schema, &[VALUE, 0xfe, 0xff, 0xff, 0xff, FAULT]);
/// assert_eq!(values, [Value::Signed(-2), Value::Fault, Value::Truncated]);
/// ```
#[must_use]
pub fn decode(schema: &Schema, payload: &[u8]) -> Vec<Value> {
    let mut rest = Some(payload);
    let values = schema.fields.iter().map(|field| {
        let read = rest.and_then(|payload| argument(field.ty, payload));
        rest = read.as_ref().map(|(_, rest)| *rest);
        read.map_or(Value::Truncated, |(value, _)| value)
    });
    values.collect()
}

type Read<'a> = Option<(Value, &'a [u8])>;

fn argument(ty: Type, payload: &[u8]) -> Read<'_> {
    let (tag, rest) = payload.split_first()?;
    match (*tag, ty.count) {
        (FAULT, _) => Some((Value::Fault, rest)),
        (MIXED, Some(count)) => elements(count, rest, |rest| element(ty.base, rest)),
        (VALUE, Some(count)) => elements(count, rest, |rest| number(ty.base, rest)),
        (_, None) => element(ty.base, payload),
        _ => None,
    }
}

fn elements<'a>(count: u8, mut rest: &'a [u8], read: impl Fn(&'a [u8]) -> Read<'a>) -> Read<'a> {
    let mut values = Vec::new();
    for _ in 0..count {
        let (value, after) = read(rest)?;
        values.push(value);
        rest = after;
    }
    Some((Value::Array(values), rest))
}

fn element(base: Base, payload: &[u8]) -> Read<'_> {
    let (tag, rest) = payload.split_first()?;
    match *tag {
        FAULT => Some((Value::Fault, rest)),
        VALUE => number(base, rest),
        STRING | CUT_STRING if base.is_string() => {
            let (len, rest) = rest.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            Some((Value::Str { bytes: bytes.into(), truncated: *tag == CUT_STRING }, rest))
        }
        _ => None,
    }
}

fn number(base: Base, payload: &[u8]) -> Read<'_> {
    let width = base.width()?;
    let (bytes, rest) = payload.split_at_checked(usize::from(width.bytes()))?;
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let value = u64::from_le_bytes(word);
    let value = match base {
        Base::Unsigned(_) => Value::Unsigned(value),
        Base::Signed(width) => Value::Signed(sign_extended(value, width)),
        Base::Hex(_) => Value::Hex(value),
        Base::Char => Value::Char(value.to_le_bytes()[0]),
        Base::Bits { .. } => Value::Bits(value),
        Base::Symbol => Value::Symbol(value),
        Base::SymbolString => Value::SymbolString(value),
        Base::String | Base::UserString => return None,
    };
    Some((value, rest))
}

const fn sign_extended(value: u64, width: Width) -> i64 {
    let above = 64 - width.bits() as u32;
    (value << above).cast_signed() >> above
}
