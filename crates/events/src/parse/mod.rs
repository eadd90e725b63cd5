//! Lines to definitions. Refusals carry Linux's code and the column its `error_log` would point at.
//!
//! The order of checks is the kernel's (`trace_kprobe.c`, `trace_uprobe.c`), since a line with two faults must report the
//! same one: number behind `r`, place, names, then the arguments one by one.

use alloc::vec::Vec;

use crate::{
    definition::{Arg, Base, Column, Definition, Kind, Place},
    error::{ErrorCode, SyntaxError},
};

mod argument;
mod event;
mod fetch;
mod number;
mod place;
mod token;
mod types;

use token::{Part, Token};

/// The most arguments of one probe (`MAX_TRACE_ARGS`).
const MAX_ARGS: usize = 128;
/// The most bytes of a record's fields (`MAX_PROBE_EVENT_SIZE`); a string counts as its 4 bytes of location.
const MAX_EVENT_SIZE: usize = 3072;
/// The most activations a return probe follows (`KRETPROBE_MAXACTIVE_MAX`).
const MAX_MAXACTIVE: u32 = 4096;

/// Reads one definition line.
///
/// # Errors
///
/// What is wrong first, and at which byte of `line`.
///
/// ```
/// use events::{Kind, Place, parse};
///
/// let definition = parse("r10:open_ret do_open $retval")?;
/// assert_eq!(definition.kind, Kind::Return { maxactive: Some(10) });
/// assert_eq!(definition.place, Place::Symbol { object: None, symbol: "do_open".into(), offset: 0 });
///
/// // There is no return value where a function begins.
/// let error = parse("p do_open $retval").unwrap_err();
/// assert_eq!((error.code.name(), error.column), ("RETVAL_ON_PROBE", 10));
/// # Ok::<(), events::SyntaxError>(())
/// ```
pub fn parse(line: &str) -> Result<Definition, SyntaxError> {
    let tokens = token::split(line)?;
    let parts: Vec<Part<'_>> = tokens.iter().map(Token::part).collect();
    let Some((command, rest)) = parts.split_first() else {
        return Err(SyntaxError::new(ErrorCode::BadCommand, 0));
    };
    match command.raw.as_bytes() {
        [b'-', ..] => removal(*command, rest),
        [b'p' | b'r', ..] => probe(*command, rest, line.trim_end().len()),
        _ => Err(command.error(ErrorCode::BadCommand)),
    }
}

/// Reads a file of definitions, one a line, and gives each with its line number, from 1.
///
/// Blank lines are skipped, and all from a `#` on, unless it is in a quoted name.
///
/// # Errors
///
/// The first refused line's number, and what is wrong with it.
///
/// ```
/// use events::parse_file;
///
/// let definitions = parse_file("# allocations\n\np malloc\nr malloc # what it gave\n").map_err(|(_, error)| error)?;
/// let lines: Vec<_> = definitions.iter().map(|(line, definition)| (*line, definition.to_string())).collect();
/// assert_eq!(lines, [(3, "p malloc".into()), (4, "r malloc".into())]);
///
/// let (line, error) = parse_file("p malloc\nx free\n").unwrap_err();
/// assert_eq!((line, error.code.name()), (2, "BAD_COMMAND"));
/// # Ok::<(), events::SyntaxError>(())
/// ```
pub fn parse_file(text: &str) -> Result<Vec<(usize, Definition)>, (usize, SyntaxError)> {
    let lines = text.lines().map(without_comment).enumerate();
    let definitions = lines.filter(|(_, line)| !line.bytes().all(token::is_space));
    definitions.map(|(at, line)| parse(line).map(|parsed| (at + 1, parsed)).map_err(|error| (at + 1, error))).collect()
}

/// The byte where the place begins in a line; the end of the line if there is none.
///
/// ```
/// use events::place_column;
///
/// assert_eq!(place_column("p:open do_open %di"), 7);
/// assert_eq!(place_column("-:open"), 6);
/// ```
#[must_use]
pub fn place_column(line: &str) -> usize {
    let end = line.trim_end().len();
    token::split(line).ok().and_then(|tokens| tokens.get(1).map(|token| token.part().column)).unwrap_or(end)
}

fn without_comment(line: &str) -> &str {
    let mut before = None;
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '#' => return line.get(..at).unwrap_or(line),
            '"' if token::opens_name(before) => {
                // An open quote is the parser's to report.
                let Some(len) = line.get(at..).and_then(token::quoted_len) else { return line };
                characters.by_ref().take_while(|(inside, _)| inside + 1 < at + len).for_each(drop);
            }
            _ => {}
        }
        before = Some(character);
    }
    line
}

fn probe(command: Part<'_>, rest: &[Part<'_>], end: usize) -> Result<Definition, SyntaxError> {
    let Some((place_part, arg_parts)) = rest.split_first() else {
        return Err(SyntaxError::new(ErrorCode::NoPlace, end));
    };
    let (letter, names) = match command.masked.find(':') {
        Some(at) => (command.split_at(at).0, Some(command.skip(at + 1))),
        None => (command, None),
    };
    let mut kind = kind(letter)?;
    let place::Parsed { place, is_return, reference } = place::parse(*place_part)?;
    if is_return && kind == Kind::Entry {
        kind = Kind::Return { maxactive: None };
    }
    if matches!((kind, &place), (Kind::Return { .. }, Place::Symbol { offset: 1.., .. })) {
        return Err(place_part.error(ErrorCode::BadRetprobe));
    }
    let (group, event) = names.map(event::parse).transpose()?.unwrap_or_default();
    let args = arguments(arg_parts, argument::Rules::new(kind, &place))?;
    Ok(Definition { kind, group, event, place, reference, args, place_column: Column(place_part.column) })
}

/// `p`, `r`, or `r` with a number.
fn kind(letter: Part<'_>) -> Result<Kind, SyntaxError> {
    let is_return = letter.raw.starts_with('r');
    let count = letter.skip(1);
    match count.raw.as_bytes() {
        [] if is_return => Ok(Kind::Return { maxactive: None }),
        [] => Ok(Kind::Entry),
        [b'0'..=b'9', ..] if is_return => maxactive(count).map(|maxactive| Kind::Return { maxactive }),
        [b'0'..=b'9', ..] => Err(count.error(ErrorCode::BadMaxactType)),
        _ => Err(letter.error(ErrorCode::BadCommand)),
    }
}

fn maxactive(count: Part<'_>) -> Result<Option<u32>, SyntaxError> {
    let number = number::unsigned(count.raw).and_then(|number| u32::try_from(number).ok());
    match number {
        Some(1..=MAX_MAXACTIVE) => Ok(number),
        Some(1..) => Err(count.error(ErrorCode::MaxactTooBig)),
        _ => Err(count.error(ErrorCode::BadMaxact)),
    }
}

fn arguments(parts: &[Part<'_>], rules: argument::Rules) -> Result<Vec<Arg>, SyntaxError> {
    if let (Some(first), true) = (parts.first(), parts.len() > MAX_ARGS) {
        return Err(first.error(ErrorCode::TooManyArgs));
    }
    if !rules.is_uprobe {
        argument::check_variables(parts, rules)?;
    }
    let mut args = Vec::new();
    let mut size = 0;
    for part in parts {
        let arg = argument::parse(*part, &args, rules)?;
        size += field_size(&arg);
        if size > MAX_EVENT_SIZE {
            return Err(part.error(ErrorCode::EventTooBig));
        }
        args.push(arg);
    }
    Ok(args)
}

/// Bytes of the field in Linux's record.
fn field_size(arg: &Arg) -> usize {
    let one = match arg.ty.base {
        Base::String | Base::UserString | Base::SymbolString => 4,
        base => base.width().map_or(0, |width| usize::from(width.bytes())),
    };
    one * usize::from(arg.ty.count.unwrap_or(1))
}

fn removal(command: Part<'_>, rest: &[Part<'_>]) -> Result<Definition, SyntaxError> {
    if !command.raw.starts_with("-:") {
        return Err(command.error(ErrorCode::BadCommand));
    }
    let (group, event) = event::parse(command.skip(2))?;
    let parsed = rest.first().map(|part| place::parse(*part)).transpose()?;
    if let Some(extra) = rest.get(1) {
        return Err(extra.error(ErrorCode::TooManyArgs));
    }
    let place_column = Column(rest.first().map_or(command.end(), |part| part.column));
    let (place, reference) = parsed.map_or((Place::Anywhere, None), |parsed| (parsed.place, parsed.reference));
    Ok(Definition { kind: Kind::Remove, group, event, place, reference, args: Vec::new(), place_column })
}
