//! What was defined: names, the numbers of counters, and what a record's bytes mean.

use super::area::Area;
use super::error::{Error, Result};
use super::place::implementation;
use crate::abi::EVENTS;
use crate::control::member::DEFAULT_MAXACTIVE;
use crate::control::objects::Objects;
use crate::control::resolve::{FetchSymbols, Resolved, resolve};
use events::{Definition, Kind, Program, Schema, compile};
use kprobes::{Handle, ProbeKind, Request};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a record needs to be read after its event has gone.
#[derive(Debug)]
pub(crate) struct Format {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) schema: Schema,
}

/// A probe that was asked for.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: u32,
    /// Which registration under that number.
    pub(crate) serial: u64,
    pub(crate) handle: Handle,
    pub(crate) format: Arc<Format>,
    /// The data of its activations.
    pub(crate) area: Area,
    /// It is switched off.
    pub(crate) disabled: bool,
    /// The object that it was in is mapped no longer.
    pub(crate) gone: bool,
}

impl Event {
    /// Whether `name` means this one: `EVENT`, or `GROUP/EVENT`.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        match name.split_once('/') {
            Some((group, event)) => group == self.format.group && event == self.format.name,
            None => name == self.format.name,
        }
    }

    /// `GROUP/EVENT`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.format.group, self.format.name)
    }
}

impl Format {
    /// Of a probe that records nothing: a name in the manner of Linux's, `p_SYMBOL_OFFSET`, `r_…` for returns, `j_…`
    /// for
    /// a jprobe.
    pub(crate) fn silent(objects: &Objects, request: &Request) -> Self {
        let kind = match request.kind {
            ProbeKind::Return { .. } => "r",
            _ if request.handlers.mirror => "j",
            _ => "p",
        };
        let place = match objects.symbolize(request.address) {
            Some((symbol, offset, _)) => format!("{symbol}_{offset:x}"),
            None => format!("{:x}", request.address),
        };
        let name = format!("{kind}_{place}").replace("::", "_");
        Self { name, group: "kprobes".into(), schema: Schema::default() }
    }
}

/// Reads a line that defines a probe.
pub(crate) fn parse(line: &str) -> Result<Definition> {
    let definition = events::parse(line).map_err(|e| Error::Syntax(e.render(line)))?;
    if definition.reference.is_some() {
        return Err(Error::Syntax("reference counters, PATH:OFFSET(COUNTER), are not supported".into()));
    }
    if definition.kind == Kind::Remove {
        return Err(Error::Syntax("a line that removes a probe defines none: use `remove`".into()));
    }
    Ok(definition)
}

/// What is to be registered for a definition, and how its records are to be read.
pub(crate) fn request(objects: &Objects, definition: &Definition, id: u32) -> Result<(Request, Format)> {
    let address = match resolve(objects, &definition.place, true) {
        Resolved::Address { address, .. } => implementation(objects, address),
        Resolved::Pending(name) => {
            return Err(Error::Place(format!("no object `{name}` is loaded now: load it first (dlopen), then define")));
        }
        Resolved::Failed(why) => return Err(Error::Place(why)),
    };
    let compiled = compile(definition, &FetchSymbols(objects)).map_err(|e| Error::Syntax(e.to_string()))?;
    let Program { code: program, schema, .. } = compiled;
    let kind = match definition.kind {
        Kind::Return { maxactive } => ProbeKind::Return { maxactive: maxactive.unwrap_or(DEFAULT_MAXACTIVE) },
        _ => ProbeKind::Entry,
    };
    let format = Format { name: definition.event_name(), group: definition.group_name(), schema };
    Ok((Request { record: true, program, ..Request::counting(address, kind, id) }, format))
}

/// The numbers of counters. One that was given back is used again as late as can be: an activation of a return probe
/// may
/// outlive it, and is counted there still.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    fresh: u32,
    free: VecDeque<u32>,
}

impl Ids {
    pub(crate) fn take(&mut self) -> Result<u32> {
        if (self.fresh as usize) < EVENTS {
            self.fresh += 1;
            return Ok(self.fresh - 1);
        }
        self.free.pop_front().ok_or(Error::Full { limit: EVENTS })
    }

    pub(crate) fn give_back(&mut self, id: u32) {
        self.free.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_after_all_others() {
        let mut ids = Ids::default();
        let first = ids.take().unwrap();
        ids.give_back(first);
        let others: Vec<u32> = (1..EVENTS).map(|_| ids.take().unwrap()).collect();
        assert!(!others.contains(&first));
        assert_eq!(ids.take().unwrap(), first);
        assert!(matches!(ids.take(), Err(Error::Full { .. })));
    }

    #[test]
    fn a_line_that_is_no_definition_says_where_it_is_wrong() {
        let said = |line: &str| parse(line).unwrap_err().to_string();
        assert!(said("p:e malloc size=$arg").contains('^'), "{}", said("p:e malloc size=$arg"));
        assert!(said("-:e").contains("use `remove`"));
    }
}
