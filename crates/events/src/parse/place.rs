//! `[OBJECT:]SYMBOL[+OFFSET]`, `[OBJECT:]0xADDRESS` or `PATH:OFFSET[(REFERENCE)]`, each with or without `%return`.
//!
//! A symbol or its object with `*`, `?` or `[` in it is a pattern; in quotes these are letters as any other.
//!
//! With a `/` in it and a digit behind its last `:` it is `PATH:OFFSET`: so Linux tells the two kinds of probe apart.

use alloc::string::String;

use super::{number, token::Part};
use crate::{
    definition::{GLOB, Place, is_live},
    error::{ErrorCode, SyntaxError},
};

pub(super) struct Parsed {
    pub(super) place: Place,
    pub(super) is_return: bool,
    pub(super) reference: Option<u64>,
}

pub(super) fn parse(part: Part<'_>) -> Result<Parsed, SyntaxError> {
    let last = part.masked.rfind(':').filter(|at| begins_number(part.skip(at + 1).masked));
    match last {
        Some(colon) if part.raw.contains('/') => file_offset(part, colon),
        _ => in_object(part),
    }
}

fn begins_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn file_offset(part: Part<'_>, colon: usize) -> Result<Parsed, SyntaxError> {
    let (path, numbers) = part.around(colon);
    let path = path.name().ok_or(part.error(ErrorCode::FileNotFound))?;
    let (place, reference) = match numbers.masked.find('(') {
        Some(open) => (numbers.split_at(open).0, Some(reference(numbers.skip(open + 1))?)),
        None => (numbers, None),
    };
    let (offset, is_return) = return_suffix(place)?;
    let offset = number::unsigned(offset.masked).ok_or(offset.error(ErrorCode::BadUprobeOffs))?;
    Ok(Parsed { place: Place::FileOffset { path, offset }, is_return, reference })
}

/// `REFERENCE)`.
fn reference(part: Part<'_>) -> Result<u64, SyntaxError> {
    let Some(close) = part.masked.find(')') else {
        return Err(SyntaxError::new(ErrorCode::RefcntOpenBrace, part.end()));
    };
    let (counter, suffix) = part.around(close);
    if !suffix.raw.is_empty() {
        return Err(suffix.error(ErrorCode::BadRefcntSuffix));
    }
    number::unsigned(counter.masked).ok_or(counter.error(ErrorCode::BadRefcnt))
}

fn in_object(part: Part<'_>) -> Result<Parsed, SyntaxError> {
    let bad = part.error(ErrorCode::BadProbeAddr);
    let (before, target) = match object_end(part.masked) {
        Some(at) => (Some(part.split_at(at).0), part.skip(at + 1)),
        None => (None, part),
    };
    let object = before.map(|object| object.name().ok_or(bad.clone())).transpose()?;
    let (target, is_return) = return_suffix(target)?;
    let is_pattern = is_glob(target) || before.is_some_and(is_glob);
    let place = if is_pattern && !begins_number(target.masked) {
        let glob = |part| glob(part).ok_or(bad.clone());
        Place::Pattern { object: before.map(glob).transpose()?, name: glob(target)? }
    } else if begins_number(target.masked) {
        Place::Address { object, addr: number::unsigned(target.masked).ok_or(bad)? }
    } else {
        let (symbol, offset) = symbol(target).ok_or(bad)?;
        Place::Symbol { object, symbol, offset }
    };
    Ok(Parsed { place, is_return, reference: None })
}

fn is_glob(part: Part<'_>) -> bool {
    is_live(part.masked)
}

/// What a part of a pattern matches: a name is taken as it is, and has no offset.
fn glob(part: Part<'_>) -> Option<String> {
    let name = part.name().filter(|_| !part.masked.contains(['+', '#']))?;
    if is_glob(part) {
        return Some(name);
    }
    let mut glob = String::new();
    for character in name.chars() {
        glob.extend((GLOB.contains(&character) || character == '\\').then_some('\\'));
        glob.push(character);
    }
    Some(glob)
}

/// Where `OBJECT:` ends: at the first `:` that is not half of a `::`.
fn object_end(masked: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = masked.get(at..)?;
        let start = at + rest.find(':')?;
        let run = masked.bytes().skip(start).take_while(|b| *b == b':').count();
        if run % 2 == 1 {
            return Some(start);
        }
        at = start + run;
    }
}

/// Takes `%return` off.
fn return_suffix(part: Part<'_>) -> Result<(Part<'_>, bool), SyntaxError> {
    let Some(at) = part.masked.find('%') else { return Ok((part, false)) };
    let (place, suffix) = part.split_at(at);
    if suffix.raw == "%return" { Ok((place, true)) } else { Err(suffix.error(ErrorCode::BadAddrSuffix)) }
}

/// `SYMBOL[+OFFSET]`, with an offset of 32 bits that is not negative.
fn symbol(part: Part<'_>) -> Option<(String, u64)> {
    let (name, offset) = match part.masked.find(['+', '-']) {
        Some(at) => (part.split_at(at).0, number::signed(part.skip(at).masked)?),
        None => (part, 0),
    };
    Some((name.name()?, u64::from(u32::try_from(offset).ok()?)))
}
