//! `[GRP/][EVENT]`: what an event is called (`traceprobe_parse_event_name`).

use alloc::string::String;

use super::token::Part;
use crate::{
    definition::MAX_EVENT_NAME,
    error::{ErrorCode, SyntaxError},
};

/// Group and event; a `.` separates as a `/` does.
pub(super) fn parse(names: Part<'_>) -> Result<(Option<String>, Option<String>), SyntaxError> {
    let Some(separator) = names.raw.find('/').or_else(|| names.raw.find('.')) else {
        return Ok((None, Some(event(names)?)));
    };
    let (group_name, event_name) = names.around(separator);
    let group = group(group_name)?;
    let event = if event_name.raw.is_empty() { None } else { Some(event(event_name)?) };
    Ok((Some(group), event))
}

fn group(name: Part<'_>) -> Result<String, SyntaxError> {
    if name.raw.is_empty() {
        Err(name.error(ErrorCode::NoGroupName))
    } else if name.raw.len() > MAX_EVENT_NAME {
        Err(name.error(ErrorCode::GroupTooLong))
    } else if !is_identifier(&name.raw.replace('-', "_")) || name.raw.starts_with('-') {
        Err(name.error(ErrorCode::BadGroupName))
    } else {
        Ok(name.raw.into())
    }
}

fn event(name: Part<'_>) -> Result<String, SyntaxError> {
    if name.raw.is_empty() {
        Err(name.error(ErrorCode::NoEventName))
    } else if name.raw.len() > MAX_EVENT_NAME {
        Err(name.error(ErrorCode::EventTooLong))
    } else if !is_identifier(name.raw) {
        Err(name.error(ErrorCode::BadEventName))
    } else {
        Ok(name.raw.into())
    }
}

/// Whether it follows the rules of C identifiers.
pub(super) fn is_identifier(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(is_letter) && name.bytes().all(|b| is_letter(b) || b.is_ascii_digit())
}
