//! `[NAME=]FETCH[:TYPE]`: one recorded value, and what its three parts mean for each other.

use alloc::{format, string::String};

use super::{event::is_identifier, fetch, token::Part, types};
use crate::{
    definition::{Arg, Base, Column, Fetch, Kind, Place, Type},
    error::{ErrorCode, SyntaxError},
};

/// The longest expression behind the name, in bytes (`MAX_ARGSTR_LEN`).
const MAX_BODY: usize = 63;
/// The longest name, in bytes (`MAX_ARG_NAME_LEN`).
const MAX_NAME: usize = 32;
/// Fields that every record has.
const RESERVED: [&str; 8] = [
    "common_type",
    "common_flags",
    "common_preempt_count",
    "common_pid",
    "common_tgid",
    "__probe_ip",
    "__probe_ret_ip",
    "__probe_func",
];

/// What the place allows its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `PATH:OFFSET`: the rules of `uprobe_events`.
    pub(super) is_uprobe: bool,
    /// There is a return value.
    pub(super) is_return: bool,
    /// The place is known to be a function's entry, so there are arguments (in a return probe, those that were kept).
    pub(super) has_arguments: bool,
}

impl Rules {
    pub(super) fn new(kind: Kind, place: &Place) -> Self {
        let is_return = matches!(kind, Kind::Return { .. });
        let is_uprobe = matches!(place, Place::FileOffset { .. });
        let is_symbol = matches!(place, Place::Symbol { offset: 0, .. });
        Self { is_uprobe, is_return, has_arguments: is_symbol || (is_return && !is_uprobe) }
    }
}

/// Looks through all arguments for `$arg…`, before any is parsed (`argv_has_var_arg`).
pub(super) fn check_variables(parts: &[Part<'_>], rules: Rules) -> Result<(), SyntaxError> {
    let mut all = None;
    for part in parts.iter().filter(|part| part.masked.starts_with("$arg")) {
        let next = part.skip("$arg".len()).masked.bytes().next();
        if !rules.has_arguments {
            return Err(part.error(ErrorCode::NofentryArgs));
        }
        match next {
            Some(b'0'..=b'9') => {}
            Some(b'*') if all.is_some() => return Err(part.error(ErrorCode::DoubleArgs)),
            Some(b'*') => all = Some(part),
            _ => return Err(part.error(ErrorCode::BadVar)),
        }
    }
    all.map_or(Ok(()), |part| Err(part.error(ErrorCode::NosupBtfarg)))
}

/// Reads one argument; `earlier` are those before it.
pub(super) fn parse(part: Part<'_>, earlier: &[Arg], rules: Rules) -> Result<Arg, SyntaxError> {
    let (name, body) = name(part, earlier.len())?;
    if RESERVED.contains(&name.as_str()) || earlier.iter().any(|arg| arg.name == name) {
        return Err(part.error(ErrorCode::UsedArgName));
    }
    if body.plain_len() > MAX_BODY {
        return Err(body.error(ErrorCode::ArgTooLong));
    }
    if body.raw.is_empty() {
        return Err(body.error(ErrorCode::NoArgBody));
    }
    let (source, ty_part) = match body.masked.find(':') {
        Some(at) => (body.split_at(at).0, Some(body.skip(at + 1))),
        None => (body, None),
    };
    let ty = types::parse(ty_part, source)?;
    let parsed = fetch::parse(source, rules)?;
    // Without a type there can be no fault in it; the column is then never used.
    let faulty = ty_part.unwrap_or(source);
    check(&parsed, ty, source, faulty)?;
    Ok(Arg { name, fetch: parsed.fetch, ty, column: Column(source.column) })
}

/// `NAME=`, and what follows; `argN` if there is none.
fn name(part: Part<'_>, index: usize) -> Result<(String, Part<'_>), SyntaxError> {
    let Some(equals) = part.masked.find('=') else {
        return Ok((format!("arg{}", index + 1), part));
    };
    let (name, body) = part.around(equals);
    if name.raw.is_empty() {
        Err(part.error(ErrorCode::NoArgName))
    } else if name.raw.len() > MAX_NAME {
        Err(part.error(ErrorCode::ArgNameTooLong))
    } else if !is_identifier(name.raw) {
        Err(part.error(ErrorCode::BadArgName))
    } else {
        Ok((name.raw.into(), body))
    }
}

/// Whether the value can be of that type (`finalize_fetch_insn`).
fn check(parsed: &fetch::Parsed, ty: Type, source: Part<'_>, ty_part: Part<'_>) -> Result<(), SyntaxError> {
    let fetch = &parsed.fetch;
    let is_array = ty.count.is_some();
    if ty.base == Base::SymbolString && !has_symbol_value(fetch) {
        return Err(ty_part.error(ErrorCode::BadSymstring));
    }
    let has_string = fetch.is_memory() || fetch.is_text() || matches!(fetch, Fetch::Immediate(_));
    if ty.base.is_string() && !has_string {
        return Err(ty_part.error(ErrorCode::BadString));
    }
    if is_array && (!fetch.is_memory() || ty.base == Base::SymbolString) {
        return Err(ty_part.error(ErrorCode::BadString));
    }
    let is_stored_in_place = fetch.is_memory() && !(ty.base.is_string() && is_array) && ty.base != Base::SymbolString;
    let is_bits = matches!(ty.base, Base::Bits { .. });
    let ops = parsed.ops + [!is_stored_in_place, is_bits, is_array].iter().filter(|extra| **extra).count();
    if ops <= fetch::MAX_OPS { Ok(()) } else { Err(source.error(ErrorCode::TooManyOps)) }
}

/// Whether the value can be an address in the program's text.
const fn has_symbol_value(fetch: &Fetch) -> bool {
    let is_plain = matches!(fetch, Fetch::Register(_) | Fetch::Stack(_) | Fetch::ReturnValue | Fetch::Argument(_));
    is_plain || fetch.is_memory()
}
