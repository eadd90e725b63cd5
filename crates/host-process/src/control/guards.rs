//! The host's own probes as they stand in a target, beside the probes that they protect.

use super::objects::Hook;
use super::target::Target;
use super::{HostError, Result};
use kprobes::{Handle, ProbeKind, Registry, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What [`hooks::wanted`](super::hooks::wanted) asked for, as far as it has a place.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    placed: BTreeMap<Hook, Handle>,
    /// Addresses where none can be.
    refused: BTreeSet<u64>,
}

impl Guards {
    /// Places those that are new; why some have no place.
    pub(crate) fn place(
        &mut self,
        target: &mut Target,
        registry: &mut Registry,
        mut wanted: Vec<Hook>,
    ) -> Result<Vec<kprobes::Error>> {
        let mut refused = Vec::new();
        wanted.retain(|hook| !self.placed.contains_key(hook) && !self.refused.contains(&hook.0));
        while !wanted.is_empty() {
            let requests: Vec<Request> = wanted.iter().copied().map(request).collect();
            match registry.register(target, &requests) {
                Ok(handles) => self.placed.extend(wanted.drain(..).zip(handles)),
                Err((_, error @ kprobes::Error::Host(_))) => return Err(HostError::Probe(error)),
                Err((index, error)) => {
                    self.refused.insert(wanted.remove(index).0);
                    refused.push(error);
                }
            }
        }
        Ok(refused)
    }

    /// One that a forked child has inherited.
    pub(crate) fn adopt(&mut self, hook: Hook, handle: Handle) {
        self.placed.insert(hook, handle);
    }

    /// What lies in `range` is mapped no longer.
    pub(crate) fn forget(&mut self, range: &Range<u64>) {
        self.placed.retain(|(address, _), _| !range.contains(address));
    }

    /// All of them, to be taken off.
    pub(crate) fn take(&mut self) -> Vec<Handle> {
        core::mem::take(&mut self.placed).into_values().collect()
    }
}

fn request((address, data): Hook) -> Request {
    Request::counting(address, ProbeKind::Internal { data }, u32::MAX)
}
