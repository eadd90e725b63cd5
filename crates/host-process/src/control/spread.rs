//! Placing patterns in a process: in each object that a pattern means, each function that it matches.

use super::catalogue::Block;
use super::groups::{BATCH, Choice, Group, Matched, matched};
use super::member::{Member, News, Plan, State};
use super::objects::{Cache, Mapped};
use super::{HostError, Result};
use events::{Definition, Place};
use kprobes::{Handle, Placement, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::primitive::Ordering;

/// After so many functions in one object there is memory to be given back.
const MANY: usize = 4096;

impl Member {
    /// Places a pattern in the objects where it is not placed yet. To be called whenever the objects have changed.
    pub(crate) fn spread(
        &mut self,
        id: usize,
        definition: &Definition,
        plan: &Plan,
        cache: &mut Cache,
        news: &mut Vec<News>,
    ) -> Result<()> {
        if self.states.get(id).is_none_or(|state| matches!(state, State::Failed)) {
            return Ok(());
        }
        let objects = self.target.objects.clone();
        let state = match matched(&objects, id, definition, self.complete, &mut cache.catalogue) {
            Matched::Blocks(blocks) => {
                for (block, at) in blocks {
                    if let Some(object) = objects.all.get(at).filter(|o| !self.groups.iter().any(|g| g.is_of(id, o))) {
                        self.place_group(definition, block, object, plan, news)?;
                    }
                }
                State::Spread
            }
            Matched::Waits(place) => State::Pending(place),
            Matched::Nothing(why) => {
                self.fail(id, why, news);
                return Ok(());
            }
        };
        let is_live = |old: &&mut State| !matches!(old, State::Failed);
        self.states.get_mut(id).filter(is_live).into_iter().for_each(|old| *old = state.clone());
        Ok(())
    }

    /// Registers the functions of a block, those that can be.
    fn place_group(
        &mut self,
        definition: &Definition,
        block: Arc<Block>,
        object: &Mapped,
        plan: &Plan,
        news: &mut Vec<News>,
    ) -> Result<()> {
        let like = match self.like(block.definition, definition, plan.count) {
            Ok(like) => like,
            Err(why) => {
                self.fail(block.definition, why, news);
                return Ok(());
            }
        };
        plan.progress.wanted.fetch_add(block.len(), Ordering::Relaxed);
        let mut group = Group::new(block.clone(), object);
        let mut functions = (0u32..).zip(block.addresses());
        loop {
            let batch: Vec<(u32, u64)> = functions.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let request = |&(at, vaddr): &(u32, u64)| Request {
                address: object.to_target(vaddr),
                id: block.event(at as usize),
                ..like.clone()
            };
            let requests: Vec<Request> = batch.iter().map(request).collect();
            let placed = self.registry.register_each(&mut self.target, &requests);
            // What is placed already is to be taken off again, if that can be.
            let placed = placed.map_err(|error| {
                self.groups.push(core::mem::replace(&mut group, Group::new(block.clone(), object)));
                HostError::Probe(error)
            })?;
            group.handles.reserve_exact(placed.len());
            group.at.reserve_exact(placed.len());
            for ((at, _), placed) in batch.into_iter().zip(placed) {
                match placed {
                    Ok(handle) => {
                        group.at.push(at);
                        group.handles.push(handle);
                    }
                    Err(error) => *group.refused.entry(error.reason()).or_default() += 1,
                }
            }
            plan.progress.placed.fetch_add(requests.len(), Ordering::Relaxed);
        }
        if group.block.len() >= MANY {
            self.target.relax();
        }
        if !group.refused.is_empty() {
            news.push(News::Spread(block.definition, group.summary()));
        }
        self.groups.push(group);
        Ok(())
    }

    /// What a forked child has of its parent's patterns.
    pub(crate) fn inherit_groups(
        &mut self,
        plan: &Plan,
        cache: &mut Cache,
        found: &mut BTreeMap<u32, Vec<(u64, u32)>>,
    ) {
        let objects = self.target.objects.clone();
        for (id, definition) in plan.definitions.iter().enumerate() {
            let Place::Pattern { object, .. } = &definition.place else { continue };
            for at in Choice::new(object.as_deref()).of(&objects, true) {
                let Some(object) = objects.all.get(at) else { continue };
                let block = cache.catalogue.block(id, definition, object);
                let group = inherited(block, object, found);
                if !group.handles.is_empty() {
                    self.groups.push(group);
                    self.states.get_mut(id).into_iter().for_each(|state| *state = State::Spread);
                }
            }
            found.remove(&(id as u32));
        }
    }

    /// Takes the probes of patterns off.
    pub(crate) fn remove_groups(&mut self) -> core::result::Result<(), kprobes::Error> {
        let mut result = Ok(());
        let mut handles = self.groups.iter().filter(|group| !group.is_off).flat_map(|group| &group.handles);
        loop {
            let batch: Vec<&Handle> = handles.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            result = result.and(self.registry.unregister(&mut self.target, batch));
        }
        if result.is_ok() {
            self.groups.iter_mut().for_each(|group| group.is_off = true);
        }
        result
    }
}

/// The functions of a block that have probes in a forked child.
fn inherited(block: Arc<Block>, object: &Mapped, found: &mut BTreeMap<u32, Vec<(u64, u32)>>) -> Group {
    let mut group = Group::new(block.clone(), object);
    let adopted = |address, members| Handle::adopted(address, members, Placement::Boosted);
    for (at, vaddr) in (0u32..).zip(block.addresses()) {
        let (address, event) = (object.to_target(vaddr), block.event(at as usize));
        let members = if block.is_each() {
            found.remove(&event)
        } else {
            // All functions have one event: those that are placed at their entry can be told apart.
            let own = |members: &Vec<(u64, u32)>| members.iter().copied().filter(|m| m.0 == address).collect();
            found.get(&event).map(own).filter(|members: &Vec<_>| !members.is_empty())
        };
        if let Some(members) = members {
            group.at.push(at);
            group.handles.push(adopted(address, members));
        }
    }
    group
}
