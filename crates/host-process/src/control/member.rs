//! One process of a trace: its target, its registry, and which events are placed in it.

use super::groups::Group;
use super::guards::Guards;
use super::hooks::{self, Needs};
use super::image::Image;
use super::inject::Site as AgentSite;
use super::mail::Mail;
use super::modules::{self, ModuleFile, Planted};
use super::notice::Progress;
use super::objects::{Cache, Objects};
use super::process::Life;
use super::resolve::{FetchSymbols, Resolved, resolve};
use super::stop::Held;
use super::table::StoredSite;
use super::tally::place_of;
use super::target::Target;
use super::{HostError, Result, depart, inject, linker, settle, table};
use crate::abi::{FLAG_FOLLOW, Home, event, mail};
use core::mem::offset_of;
use events::{Definition, Place, compile};
use hit::Kind;
use kprobes::{Handle, Placement, ProbeKind, Registry, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync::primitive::{Ordering, fence};

/// Instances of a return probe whose definition does not say `r[MAXACTIVE]`.
///
/// Linux has ten or two for each processor, because its functions seldom sleep; here a recursion is what counts.
pub const DEFAULT_MAXACTIVE: u32 = 4096;

/// How many places in objects that have gone are remembered.
const PAST: usize = 1 << 10;

/// What a trace asks of every process in it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) definitions: Arc<Vec<Definition>>,
    pub(crate) follow: bool,
    /// Count only, record nothing.
    pub(crate) count: bool,
    /// No jumps.
    pub(crate) breakpoints: bool,
    /// How far placing is.
    pub(crate) progress: Arc<Progress>,
    /// Modules to insert, and whether they end with the trace.
    pub(crate) modules: Arc<Vec<(ModuleFile, bool)>>,
}

impl Plan {
    pub(crate) fn needs(&self) -> Needs {
        // What probes a module brings is not known before.
        let returns = self.definitions.iter().any(|d| matches!(d.kind, events::Kind::Return { .. }));
        let returns = returns || !self.modules.is_empty();
        Needs { returns, exec: self.follow, sandbox: false }
    }
}

/// How an event stands in a process.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Waits for an object of this name.
    Pending(String),
    Placed(Handle),
    /// A pattern: its functions are in groups.
    Spread,
    /// It could not be placed here; said already.
    Failed,
}

/// What a member has to say to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// An event cannot be placed: its index, and why.
    Failed(usize, String),
    /// What became of a pattern in an object, where not all functions are probed.
    Spread(usize, String),
    /// Something worth knowing.
    Note(String),
}

/// One process of a trace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) target: Target,
    /// Tells when the process ends.
    pub(crate) life: Life,
    pub(crate) states: Vec<State>,
    /// The functions of patterns.
    pub(crate) groups: Vec<Group>,
    /// Where definitions were placed in objects that have gone, each once.
    pub(crate) past: BTreeSet<(usize, String)>,
    pub(crate) registry: Registry,
    guards: Guards,
    /// All objects that the program starts with are mapped.
    pub(crate) complete: bool,
    /// Handlers whose masks had `SIGTRAP` in them.
    pub(crate) cleaned: Vec<settle::Changed>,
    /// The probes of modules.
    pub(crate) modules: Planted,
    /// A thread that waits for us in a handler.
    pub(crate) teller: Option<i32>,
    /// Events of a tool that was killed, to be taken off.
    leftovers: Vec<Handle>,
}

impl Member {
    /// Puts the agent into a held process, or finds it there, and makes it ready for probes.
    pub(crate) fn enter(held: &mut Held, pid: i32, image: &Image, plan: &Plan, cache: &mut Cache) -> Result<Self> {
        let banks = if plan.follow { crate::abi::BANKS } else { 1 };
        let mut inhabited = false;
        let site = match inject::find(pid)? {
            Some((home, shared)) => {
                inject::restart(held, pid, home)?;
                inhabited = modules::are_in(pid, home)?;
                if !inhabited {
                    super::scrub::scrub(held, pid, home)?;
                }
                inject::renew(held, pid, home, shared, banks)?
            }
            None => inject::inject(held, pid, image, crate::abi::MEMFD_NAME, banks)?,
        };
        inject::count(pid, site.home)?;
        let objects = Objects::read(pid, cache)?;
        let target = Target::open(pid, site, objects)?;
        target.set_home_half(offset_of!(Home, flags), if plan.follow { FLAG_FOLLOW } else { 0 })?;
        if inhabited {
            return Self::inhabited(target, plan);
        }
        let mut registry = Registry::new(target.home_half(offset_of!(Home, sites_used))?, 0);
        let (jumps, sites): (Vec<_>, Vec<_>) = target.sites()?.into_iter().partition(StoredSite::is_jump);
        sites.into_iter().for_each(|site| registry.adopt(site.index, site.data));
        jumps.iter().for_each(|jump| registry.inherit_jump(jump.index, &jump.data, false));
        Self::new(target, registry, 0, plan)
    }

    fn new(mut target: Target, registry: Registry, bank: usize, plan: &Plan) -> Result<Self> {
        (target.places_jumps, target.bank) = (!plan.breakpoints, bank);
        let states = plan.definitions.iter().map(|_| State::Pending(String::new())).collect();
        let life = Life::of(target.pid)?;
        let guards = Guards::default();
        Ok(Self {
            target,
            life,
            states,
            groups: Vec::new(),
            past: BTreeSet::new(),
            registry,
            guards,
            complete: false,
            cleaned: Vec::new(),
            modules: Planted::default(),
            teller: None,
            leftovers: Vec::new(),
        })
    }

    /// A process that an earlier tool has left modules in. Their probes and the guards stand, and are taken over; what
    /// else stands there is of a tool that was killed.
    fn inhabited(target: Target, plan: &Plan) -> Result<Self> {
        let (sites, probes) = (target.sites()?, target.probes()?);
        let chained = sites.iter().flat_map(|s| table::chain(&probes, s.first)).max().map_or(0, |last| last + 1);
        let registry = Registry::new(sites.len() as u32, chained).after(table::latest(&probes));
        let mut member = Self::new(target, registry, 0, plan)?;
        let found = member.take_over(sites, &probes)?;
        let adopted = |members: Vec<(u64, u32)>| {
            let address = members.first().map_or(0, |m| m.0);
            Handle::adopted(address, members, Placement::Boosted)
        };
        member.leftovers = found.into_values().map(adopted).collect();
        Ok(member)
    }

    /// A forked child, which has found itself a bank. Its table and text are copies of its parent's, as they were when
    /// it was forked: what is placed in it stands there.
    pub(crate) fn fork(agent: AgentSite, pid: i32, bank: usize, plan: &Plan, cache: &mut Cache) -> Result<Self> {
        let target = Target::open(pid, agent, Objects::read(pid, cache)?)?;
        let (sites, probes) = (target.sites()?, target.probes()?);
        let registry = Registry::new(sites.len() as u32, probes.len() as u32).after(table::latest(&probes));
        let mut member = Self::new(target, registry, bank, plan)?;
        member.complete = is_complete(&member.target.objects);
        let mut found = member.take_over(sites, &probes)?;
        member.find_guests()?;
        member.inherit_groups(plan, cache, &mut found);
        for (id, members) in found {
            let placement = placement(&probes, &members);
            if let (Some(state), Some(&(address, _))) = (member.states.get_mut(id as usize), members.first()) {
                *state = State::Placed(Handle::adopted(address, members, placement));
            }
        }
        Ok(member)
    }

    /// Takes over the probes that stand in the target's table; gives those of events, by their ids.
    fn take_over(
        &mut self,
        sites: Vec<StoredSite>,
        probes: &[table::StoredProbe],
    ) -> Result<BTreeMap<u32, Vec<(u64, u32)>>> {
        let mut found: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
        let (jumps, sites): (Vec<_>, Vec<_>) = sites.into_iter().partition(StoredSite::is_jump);
        let standing: BTreeSet<u64> = jumps.iter().filter(|j| j.armed).map(|j| j.data.address).collect();
        for site in sites {
            if site.armed && !self.target.is_planted(site.data.address, standing.contains(&site.data.address)) {
                // Its object was unmapped when no tool was there.
                self.target.abandon(&site, &table::chain(probes, site.first))?;
                self.registry.adopt(site.index, site.data);
                continue;
            }
            // One that its parent was just taking off has no owner here; a module's may be off because it has faulted.
            let mut chain = table::chain(probes, site.first);
            chain.retain(|&index| probes.get(index as usize).is_some_and(|p| p.registered || p.owner != 0));
            let known = chain.iter().filter_map(|&index| Some((index, probes.get(index as usize)?)));
            let mut bits = 0;
            for (index, probe) in known.filter(|(_, p)| site.armed || p.owner != 0) {
                let place = (site.data.address, index);
                let handle = |members| Handle::adopted(place.0, members, Placement::Boosted);
                match (probe.kind, probe.owner.checked_sub(1)) {
                    (Some(Kind::Internal), _) => {
                        self.guards.adopt((place.0, probe.data), handle(vec![place]));
                    }
                    (Some(kind), module) => {
                        bits = if kind == Kind::Return { bits.max(probe.bit + 1) } else { bits };
                        match module {
                            Some(module) => self.modules.adopt(probe.id, module, handle(vec![place])),
                            None => found.entry(probe.id).or_default().push(place),
                        }
                    }
                    (None, _) => {}
                }
            }
            self.registry.inherit(site.index, site.data, chain, bits, site.armed);
        }
        for jump in jumps {
            self.registry.inherit_jump(jump.index, &jump.data, jump.armed);
        }
        Ok(found)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.target.pid
    }

    /// Places everything for the first time, while thread `held` makes system calls for us: the guards, then whatever
    /// they come too late for is put right, then the events.
    pub(crate) fn begin(&mut self, plan: &Plan, held: i32, others: Vec<Held>, cache: &mut Cache) -> Result<Vec<News>> {
        let mut news = Vec::new();
        let leftovers = core::mem::take(&mut self.leftovers);
        self.registry.unregister(&mut self.target, &leftovers)?;
        self.target.forget_programs()?;
        let mut others = self.hold_others(held, others);
        settle::unblock_held(&self.target, &mut others)?;
        // What was seen of its objects may be gone; from the first hook on nothing goes unnoticed.
        self.refresh(cache)?;
        self.place_hooks(plan, cache, &mut news)?;
        drop(others);
        settle::unblock(&self.target, held)?;
        if let Some(mut remote) = self.target.set_remote(None) {
            let scratch = self.target.home(offset_of!(Home, scratch));
            self.cleaned = settle::clean_handlers(remote.as_mut(), &self.target, scratch)?;
            let before = self.cleaned_before()?;
            self.cleaned.extend(settle::changed_before(remote.as_mut(), &self.target, scratch, before)?);
            self.target.set_remote(Some(remote));
        }
        self.place_events(plan, cache, &mut news)?;
        Ok(news)
    }

    /// Stops all threads but `held`, when none of them is mapping or unmapping objects. `others` are held already.
    fn hold_others(&self, held: i32, others: Vec<Held>) -> Vec<Held> {
        let hold = |others| settle::hold_others(self.pid(), held, others);
        if others.is_empty() { linker::patiently(|| hold(Vec::new()), |_| self.is_settled()) } else { hold(others) }
    }

    /// Whether no object is just coming or going: a thread that waits for us has not begun, or is done.
    fn is_settled(&self) -> bool {
        let mailbox = self.target.agent.shared.bank(self.target.bank).map(|bank| &bank.mailbox);
        let told = mailbox.is_some_and(|mailbox| mailbox.event.load(Ordering::Relaxed) == event::OBJECTS);
        told && self.waits_for_us() || !linker::is_at_work(self.target.memory(), &self.target.objects)
    }

    /// Whether a thread waits in the mailbox.
    pub(crate) fn waits_for_us(&self) -> bool {
        let bank = self.target.agent.shared.bank(self.target.bank);
        bank.is_some_and(|bank| bank.mailbox.state.load(Ordering::Acquire) == mail::EVENT)
    }

    /// Nobody listens any more: a thread that waits goes on, and no other one begins to.
    pub(crate) fn hang_up(&self) {
        let shared = &self.target.agent.shared;
        shared.header().listening.store(0, Ordering::Relaxed);
        // Here: tell, then look for one that has the mailbox. There: take it, then look whether somebody listens.
        fence(Ordering::SeqCst);
        Mail { pid: self.pid(), shared: shared.clone(), bank: self.target.bank }.wait_for_end();
    }

    /// Places what can be placed now: hooks of our own first, then events. To be called while somebody makes system
    /// calls for us in the target, and whenever its objects have changed.
    pub(crate) fn place(&mut self, plan: &Plan, cache: &mut Cache) -> Result<Vec<News>> {
        let mut news = Vec::new();
        self.place_hooks(plan, cache, &mut news)?;
        self.place_events(plan, cache, &mut news)?;
        Ok(news)
    }

    /// Places events whose objects are there.
    pub(crate) fn place_events(&mut self, plan: &Plan, cache: &mut Cache, news: &mut Vec<News>) -> Result<()> {
        let mut batch: Vec<(usize, Request)> = Vec::new();
        for (id, definition) in plan.definitions.iter().enumerate() {
            if matches!(definition.place, Place::Pattern { .. }) {
                self.spread(id, definition, plan, cache, news)?;
                continue;
            }
            if !matches!(self.states.get(id), Some(State::Pending(_))) {
                continue;
            }
            match self.request(id, definition, plan.count, news) {
                Ok(Some(request)) => batch.push((id, request)),
                Ok(None) => {}
                Err(why) => self.fail(id, why, news),
            }
        }
        self.register(batch, news)
    }

    /// What to register for an event; `None` while its object is not there.
    fn request(
        &mut self,
        id: usize,
        definition: &Definition,
        count: bool,
        news: &mut Vec<News>,
    ) -> core::result::Result<Option<Request>, String> {
        let address = match resolve(&self.target.objects, &definition.place, self.complete) {
            Resolved::Address { address, note } => {
                news.extend(note.map(News::Note));
                address
            }
            Resolved::Pending(name) => {
                if let Some(state) = self.states.get_mut(id) {
                    *state = State::Pending(name);
                }
                return Ok(None);
            }
            Resolved::Failed(why) => return Err(why),
        };
        self.like(id, definition, count).map(|request| Some(Request { address, ..request }))
    }

    /// A request for an event, but for its address.
    pub(crate) fn like(
        &self,
        id: usize,
        definition: &Definition,
        count: bool,
    ) -> core::result::Result<Request, String> {
        let program = compile(definition, &FetchSymbols(&self.target.objects)).map_err(|e| e.to_string())?;
        let program = if count { Vec::new() } else { program.code };
        Ok(Request { record: !count, program, ..Request::counting(0, kind_of(definition), id as u32) })
    }

    /// Registers a batch; a request that fails is left out.
    fn register(&mut self, batch: Vec<(usize, Request)>, news: &mut Vec<News>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (ids, requests): (Vec<usize>, Vec<Request>) = batch.into_iter().unzip();
        let placed = self.registry.register_each(&mut self.target, &requests).map_err(HostError::Probe)?;
        for (id, placed) in ids.into_iter().zip(placed) {
            match (placed, self.states.get_mut(id)) {
                (Ok(handle), Some(state)) => *state = State::Placed(handle),
                (Ok(_), None) => {}
                (Err(error), _) => self.fail(id, error.to_string(), news),
            }
        }
        Ok(())
    }

    pub(crate) fn fail(&mut self, id: usize, why: String, news: &mut Vec<News>) {
        if let Some(state) = self.states.get_mut(id) {
            *state = State::Failed;
        }
        news.push(News::Failed(id, why));
    }

    /// Places the host's own probes, which protect the others.
    pub(crate) fn place_hooks(&mut self, plan: &Plan, cache: &mut Cache, news: &mut Vec<News>) -> Result<()> {
        let mut needs = plan.needs();
        needs.returns |= !self.modules.probes.is_empty();
        let wanted = hooks::wanted(&self.target.objects, needs, cache);
        let refused = self.guards.place(&mut self.target, &mut self.registry, wanted)?;
        news.extend(
            refused.into_iter().map(|error| {
                News::Note(format!("a probe of our own, which protects the others, has no place: {error}"))
            }),
        );
        Ok(())
    }

    /// The target's objects have changed: looks again, and forgets what lay in those that have gone.
    pub(crate) fn refresh(&mut self, cache: &mut Cache) -> Result<()> {
        let now = Objects::read(self.pid(), cache)?;
        let before = core::mem::replace(&mut self.target.objects, Arc::new(now));
        for range in before.all.iter().flat_map(|o| o.code.iter()) {
            if self.target.objects.at(range.start).is_none() {
                self.registry.forget(&mut self.target, range.clone());
                self.guards.forget(range);
                for (id, state) in self.states.iter_mut().enumerate() {
                    if let State::Placed(handle) = state
                        && range.contains(&handle.address)
                    {
                        if self.past.len() < PAST {
                            self.past.insert((id, place_of(&before, handle)));
                        }
                        *state = State::Pending(String::new());
                    }
                }
            }
        }
        for group in self.groups.extract_if(.., |group| !group.is_mapped(&self.target.objects)) {
            self.past.insert((group.block.definition, group.summary()));
        }
        self.complete = self.complete || is_complete(&self.target.objects);
        Ok(())
    }

    /// Removes all probes but those of modules and the guards, which go when the agent [departs](Self::depart).
    pub(crate) fn remove_probes(&mut self) -> Result<()> {
        // A thread may be unmapping what we have let it unmap.
        linker::patiently(|| (), |()| self.is_settled());
        let mut handles: Vec<Handle> = Vec::new();
        for state in &mut self.states {
            if let State::Placed(handle) = core::mem::replace(state, State::Failed) {
                handles.push(handle);
            }
        }
        self.registry.unregister(&mut self.target, &handles).and(self.remove_groups()).map_err(HostError::Probe)
    }

    /// The agent goes to sleep and the guards go, unless modules are here: then it is noted what is still to be undone.
    /// `teller` is a thread that waits for us, if one does.
    pub(crate) fn depart(&mut self, teller: Option<i32>) -> Result<()> {
        let inhabited = self.is_inhabited()?;
        self.note_cleaned(inhabited)?;
        if inhabited {
            return Ok(());
        }
        let (guards, registry) = (self.guards.take(), &mut self.registry);
        let take_guards_off = |target: &mut Target| registry.unregister(target, &guards).map_err(HostError::Probe);
        depart::depart(&mut self.target, &self.cleaned, teller, take_guards_off).map(drop)
    }
}

/// What a definition's probes are.
pub(crate) fn kind_of(definition: &Definition) -> ProbeKind {
    match definition.kind {
        events::Kind::Return { maxactive } => ProbeKind::Return { maxactive: maxactive.unwrap_or(DEFAULT_MAXACTIVE) },
        _ => ProbeKind::Entry,
    }
}

/// How the probes of an event that was found in a table are placed.
pub(crate) fn placement(probes: &[table::StoredProbe], members: &[(u64, u32)]) -> Placement {
    let kind = members.first().and_then(|&(_, index)| probes.get(index as usize)?.kind);
    match kind {
        Some(Kind::Return) => Placement::ReturnStub,
        Some(Kind::ReturnSite) => Placement::ReturnSites(members.len(), "as in its parent".into()),
        _ => Placement::Boosted,
    }
}

/// Whether every object that a mapped one needs is mapped.
fn is_complete(objects: &Objects) -> bool {
    let mapped = |name: &String| objects.all.iter().any(|o| o.is_called(name));
    objects.all.iter().all(|o| o.object.needed().iter().all(mapped))
}
