//! Fetch expressions (`parse_probe_arg`).

use alloc::{boxed::Box, format, string::String};

use super::{argument::Rules, number, token::Part};
use crate::{
    definition::{Fetch, Register},
    error::{ErrorCode, SyntaxError},
};

/// The most operations of one argument's program in Linux, less the end mark (`FETCH_INSN_MAX`). Ours are others, but the
/// limit is part of the language.
pub(super) const MAX_OPS: usize = 15;
/// The most of `$stackN`: a kernel stack's words (`PARAM_MAX_STACK`).
const MAX_STACK: u64 = 2048;

pub(super) struct Parsed {
    pub(super) fetch: Fetch,
    /// How many operations Linux needs for it.
    pub(super) ops: usize,
}

impl Parsed {
    const fn new(fetch: Fetch, ops: usize) -> Self {
        Self { fetch, ops }
    }
}

pub(super) fn parse(part: Part<'_>, rules: Rules) -> Result<Parsed, SyntaxError> {
    match part.masked.as_bytes() {
        [b'$', ..] => variable(part, rules).map(|fetch| Parsed::new(fetch, 1)),
        [b'%', ..] => register(part).map(|fetch| Parsed::new(fetch, 1)),
        [b'@', ..] => memory(part, rules),
        [b'+' | b'-', ..] => dereference(part, rules),
        [b'\\', b'"', ..] => text(part).map(|fetch| Parsed::new(fetch, 1)),
        [b'\\', ..] => immediate(part).map(|fetch| Parsed::new(fetch, 1)),
        [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] if !part.raw.starts_with('"') => Err(part.error(ErrorCode::NosupBtfarg)),
        _ => Err(part.error(ErrorCode::BadFetchArg)),
    }
}

fn variable(part: Part<'_>, rules: Rules) -> Result<Fetch, SyntaxError> {
    let name = part.skip(1).raw;
    if let Some(field) = name.strip_prefix("retval") {
        return match field {
            _ if !rules.is_return => Err(part.error(ErrorCode::RetvalOnProbe)),
            "" => Ok(Fetch::ReturnValue),
            _ if field.starts_with("->") => Err(part.error(ErrorCode::NosupBtfarg)),
            _ => Err(part.error(ErrorCode::BadVar)),
        };
    }
    match name {
        "stack" => return Ok(Fetch::StackPointer),
        "comm" | "COMM" => return Ok(Fetch::Comm),
        _ => {}
    }
    if let Some(index) = name.strip_prefix("stack") {
        return stack(index, part, rules);
    }
    let index = name.strip_prefix("arg").ok_or(part.error(ErrorCode::BadVar))?;
    argument(index, part, rules)
}

fn stack(index: &str, part: Part<'_>, rules: Rules) -> Result<Fetch, SyntaxError> {
    let index = number::decimal(index).ok_or(part.error(ErrorCode::BadVar))?;
    if index > MAX_STACK && !rules.is_uprobe {
        return Err(part.error(ErrorCode::BadStackNum));
    }
    u32::try_from(index).map(Fetch::Stack).map_err(|_| part.error(ErrorCode::BadStackNum))
}

fn argument(index: &str, part: Part<'_>, rules: Rules) -> Result<Fetch, SyntaxError> {
    if index == "*" && !rules.is_uprobe {
        return Err(part.error(ErrorCode::BadVarArgs));
    }
    let index = number::decimal(index).ok_or(part.error(ErrorCode::BadVar))?;
    let index = u8::try_from(index).ok().filter(|n| *n > 0).ok_or(part.error(ErrorCode::BadArgNum))?;
    if rules.has_arguments { Ok(Fetch::Argument(index)) } else { Err(part.error(ErrorCode::NofentryArgs)) }
}

fn register(part: Part<'_>) -> Result<Fetch, SyntaxError> {
    Register::from_name(part.skip(1).raw).map(Fetch::Register).ok_or(part.error(ErrorCode::BadRegName))
}

/// `@ADDR`, `@+OFF`, `@SYM[+|-OFF]`. All read memory, which is one operation more.
fn memory(part: Part<'_>, rules: Rules) -> Result<Parsed, SyntaxError> {
    let target = part.skip(1);
    match target.masked.as_bytes() {
        [b'0'..=b'9', ..] => {
            let addr = number::unsigned(target.masked).ok_or(part.error(ErrorCode::BadMemAddr))?;
            Ok(Parsed::new(Fetch::Memory(addr), 2))
        }
        [b'+', ..] if !rules.is_uprobe => Err(part.error(ErrorCode::FileOnKprobe)),
        [b'+', ..] => {
            let offset = number::signed(target.skip(1).masked).ok_or(part.error(ErrorCode::BadFileOffs))?;
            Ok(Parsed::new(Fetch::FileOffset(offset), 2))
        }
        _ if rules.is_uprobe => Err(part.error(ErrorCode::SymOnUprobe)),
        _ => {
            let (name, offset) = symbol(target).ok_or(part.error(ErrorCode::BadMemAddr))?;
            Ok(Parsed::new(Fetch::Symbol { name, offset }, 3))
        }
    }
}

fn symbol(part: Part<'_>) -> Option<(String, i64)> {
    match part.masked.find(['+', '-']) {
        Some(at) => Some((part.split_at(at).0.name()?, number::signed(part.skip(at).masked)?)),
        None => Some((part.name()?, 0)),
    }
}

/// `+|-[u]OFF(FETCH)`.
fn dereference(part: Part<'_>, rules: Rules) -> Result<Parsed, SyntaxError> {
    let user = part.masked.as_bytes().get(1) == Some(&b'u');
    let after_sign = part.skip(if user { 2 } else { 1 });
    let Some(open) = after_sign.masked.find('(') else {
        return Err(part.error(ErrorCode::DerefNeedBrace));
    };
    let (offset, inside) = after_sign.around(open);
    let offset = match part.masked.as_bytes() {
        [b'-', ..] => number::signed(&format!("-{}", offset.masked)),
        _ => number::signed(offset.masked),
    };
    let offset = offset.ok_or(part.error(ErrorCode::BadDerefOffs))?;
    let Some(close) = inside.masked.rfind(')') else {
        return Err(SyntaxError::new(ErrorCode::DerefOpenBrace, inside.end()));
    };
    let (inside, suffix) = inside.around(close);
    let inner = parse(inside, rules)?;
    if inner.fetch.is_text() {
        return Err(inside.error(ErrorCode::CommCantDeref));
    }
    if inner.ops >= MAX_OPS {
        return Err(inside.error(ErrorCode::TooManyOps));
    }
    if !suffix.raw.is_empty() {
        return Err(suffix.error(ErrorCode::BadFetchArg));
    }
    Ok(Parsed::new(Fetch::Deref { user, offset, inner: Box::new(inner.fetch) }, inner.ops + 1))
}

fn text(part: Part<'_>) -> Result<Fetch, SyntaxError> {
    let text = part.skip(2);
    match text.raw.strip_suffix('"') {
        Some(inside) => Ok(Fetch::Text(inside.into())),
        None => Err(SyntaxError::new(ErrorCode::ImmstrNoClose, text.end())),
    }
}

/// `\NUMBER`: unsigned without a sign, signed with one (`str_to_immediate`).
fn immediate(part: Part<'_>) -> Result<Fetch, SyntaxError> {
    let digits = part.skip(1);
    let value = match digits.masked.as_bytes() {
        [b'0'..=b'9', ..] => number::unsigned(digits.masked),
        [b'-', ..] => number::signed(digits.masked).map(i64::cast_unsigned),
        [b'+', ..] => number::signed(digits.skip(1).masked).map(i64::cast_unsigned),
        _ => None,
    };
    value.map(Fetch::Immediate).ok_or(digits.error(ErrorCode::BadImm))
}
