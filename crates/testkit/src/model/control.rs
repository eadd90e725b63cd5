//! Control's host: the same machine, written through the table.

use super::interleave::{pause, wait_for_others};
use super::{Machine, SLOT_BYTES, SLOTS, SLOTS_BYTES, TEXT};
use hit::{Probe, Site};
use kprobes::{Error, Function, ProbeData, ReturnScheme, SiteData, Stepping};
use std::collections::BTreeMap;
use sync::primitive::{AtomicU32, Ordering};
use sync::{ActiveSet, Table};

/// The instruction set, for both halves.
pub type X86 = arch::x86::X86<super::Program64>;

/// A call of the host's, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of `kprobes::Host` with this name")]
pub enum Call {
    Read,
    Function,
    ReturnScheme,
    Slot,
    WriteSlot,
    StoreProgram,
    StoreSite,
    Publish,
    StoreProbe,
    SetState,
    SetFirst,
    SetNext,
    SetArmed,
    Patch,
    Grace,
}

/// What is called between two calls of control's.
type Meanwhile<'m> = Box<dyn FnMut(&Machine, Call) + Send + 'm>;
/// A write that is kept back.
type Write<'m> = Box<dyn FnOnce(&'m Machine) + Send + 'm>;

/// The machine as control sees it.
///
/// ```
/// use kprobes::{ProbeKind, Registry, Request};
/// use testkit::model::{Call, Control, Machine, Program};
///
/// # fn main() -> Result<(), kprobes::Error> {
/// let mut p = Program::new();
/// let leaf = p.function("leaf", 0);
/// p.add_rdi(1);
/// p.ret();
/// let machine = Machine::new(p, 0);
/// let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
/// let request = Request::counting(leaf, ProbeKind::Entry, 1);
///
/// // Whatever fails, the text is as it was.
/// control.fail = 0..1;
/// assert!(registry.register(&mut control, &[request.clone()]).is_err());
/// assert_eq!(machine.text(), machine.pristine());
/// control.calm();
/// // Another kind of host: it writes many things at once, when it is told to.
/// control.keep_back();
///
/// // Between two calls other processors run. When the breakpoint is written, the copy of `add rdi, 1` is there.
/// control.meanwhile(|machine, call| {
///     assert!(call != Call::Patch || machine.memory.word(testkit::model::SLOTS) != Some(0));
/// });
/// let handles = registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
/// assert_eq!(control.slots(), 1);
/// registry.unregister(&mut control, &handles)?;
/// assert_eq!(control.calls.last(), Some(&Call::Grace));
/// # Ok(())
/// # }
/// ```
pub struct Control<'m> {
    /// The machine.
    pub machine: &'m Machine,
    /// The calls so far.
    pub calls: Vec<Call>,
    /// The call with this number (from 0) fails, and so do all that are made while this is a range of more than one.
    pub fail: std::ops::Range<usize>,
    /// A patch that fails has written this many bytes before.
    pub patched_before_failure: usize,
    /// How the returns of a function are seen, where not by stubs.
    pub schemes: BTreeMap<u64, ReturnScheme>,
    /// Runs before each call.
    meanwhile: Option<Meanwhile<'m>>,
    /// How instructions that are probed from now on are stepped.
    pub stepping: Stepping,
    slots: u64,
    programs: u32,
    /// What is stored and not written yet, if that is how this host works.
    kept_back: Option<Vec<Write<'m>>>,
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("calls", &self.calls).field("fail", &self.fail).finish_non_exhaustive()
    }
}

impl<'m> Control<'m> {
    /// Control of `machine`, from its beginning.
    #[must_use]
    pub fn new(machine: &'m Machine) -> Self {
        Self {
            machine,
            calls: Vec::new(),
            fail: 0..0,
            patched_before_failure: 0,
            schemes: BTreeMap::new(),
            meanwhile: None,
            stepping: Stepping::Best,
            slots: 0,
            programs: 0,
            kept_back: None,
        }
    }

    /// Keeps all writes back from now on, until they are flushed, but for those to the text: these must find all others
    /// made.
    pub fn keep_back(&mut self) {
        self.kept_back = Some(Vec::new());
    }

    fn write(&mut self, write: impl FnOnce(&'m Machine) + Send + 'm) {
        match &mut self.kept_back {
            Some(kept_back) => kept_back.push(Box::new(write)),
            None => write(self.machine),
        }
    }

    fn assert_flushed(&self) {
        assert!(self.kept_back.as_ref().is_none_or(Vec::is_empty), "what was stored is not flushed");
    }

    /// Runs `f` before each call from now on: other processors do something meanwhile.
    pub fn meanwhile(&mut self, f: impl FnMut(&Machine, Call) + Send + 'm) {
        self.meanwhile = Some(Box::new(f));
    }

    /// Nothing happens meanwhile any more, and nothing fails.
    pub fn calm(&mut self) {
        self.meanwhile = None;
        self.fail = 0..0;
    }

    /// How many slots were given out.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.slots
    }

    fn enter(&mut self, call: Call) -> Result<(), Error> {
        pause();
        if let Some(mut f) = self.meanwhile.take() {
            f(self.machine, call);
            self.meanwhile = Some(f);
        }
        let number = self.calls.len();
        self.calls.push(call);
        if self.fail.contains(&number) {
            return Err(Error::Host(format!("call {number}, {call:?}, fails as it was told to")));
        }
        Ok(())
    }

    fn site(&self, index: u32) -> Result<&'m Site, Error> {
        let sites = &self.machine.tables.sites;
        sites.get(index as usize).ok_or(Error::Full { what: "sites", limit: sites.len() })
    }

    fn probe(&self, index: u32) -> Result<&'m Probe, Error> {
        let probes = &self.machine.tables.probes;
        probes.get(index as usize).ok_or(Error::Full { what: "probes", limit: probes.len() })
    }

    fn written(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self.machine.memory.write(address, bytes);
        written.then_some(()).ok_or_else(|| Error::Host(format!("{address:#x} is not mapped")))
    }
}

fn set_half(to: &AtomicU32, value: u32) {
    to.store(value, Ordering::Release);
}

impl kprobes::Host for Control<'_> {
    type Isa = X86;

    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Error> {
        self.enter(Call::Read)?;
        self.machine.memory.read(address, out).then_some(()).ok_or(Error::Host(format!("{address:#x} is not mapped")))
    }

    fn function(&mut self, address: u64) -> Result<Function, Error> {
        self.enter(Call::Function)?;
        if (SLOTS..SLOTS + SLOTS_BYTES as u64).contains(&address) {
            return Err(Error::Ours { address });
        }
        let pristine = self.machine.pristine();
        if !(TEXT..TEXT + pristine.len() as u64).contains(&address) {
            return Err(Error::NotText { address });
        }
        let found = self.machine.function_at(address).ok_or(Error::UnknownFunction { address })?;
        let at = (found.start - TEXT) as usize;
        let code = pristine.get(at..at + found.length as usize).unwrap_or_default().to_vec();
        Ok(Function { start: found.start, code })
    }

    fn return_scheme(&mut self, start: u64) -> Result<ReturnScheme, Error> {
        self.enter(Call::ReturnScheme)?;
        Ok(self.schemes.get(&start).cloned().unwrap_or(ReturnScheme::Stub))
    }

    fn stepping(&self) -> Stepping {
        self.stepping
    }

    fn publishes_slots(&self) -> bool {
        true
    }

    fn slot(&mut self, _: u64) -> Result<u64, Error> {
        self.enter(Call::Slot)?;
        if self.slots * SLOT_BYTES >= SLOTS_BYTES as u64 {
            return Err(Error::Full { what: "slots", limit: SLOTS_BYTES / SLOT_BYTES as usize });
        }
        self.slots += 1;
        Ok(SLOTS + (self.slots - 1) * SLOT_BYTES)
    }

    fn write_slot(&mut self, slot: u64, code: &[u8]) -> Result<(), Error> {
        self.enter(Call::WriteSlot)?;
        if self.kept_back.is_none() {
            return self.written(slot, code);
        }
        let code = code.to_vec();
        self.write(move |machine| assert!(machine.memory.write(slot, &code)));
        Ok(())
    }

    fn store_program(&mut self, code: &[u8]) -> Result<u32, Error> {
        self.enter(Call::StoreProgram)?;
        self.programs += code.len() as u32;
        Ok(self.programs - code.len() as u32)
    }

    fn store_site(&mut self, index: u32, data: &SiteData) -> Result<(), Error> {
        self.enter(Call::StoreSite)?;
        let (site, data) = (self.site(index)?, *data);
        self.write(move |machine| data.store(site, machine.tables.marks.get(index as usize)));
        Ok(())
    }

    fn publish(&mut self, address: u64, entry: u64) -> Result<(), Error> {
        self.enter(Call::Publish)?;
        let limit = self.machine.tables.buckets.len();
        if self.kept_back.is_some() {
            self.write(move |machine| assert!(Table::new(&machine.tables.buckets).insert(address, entry)));
            return Ok(());
        }
        let table = Table::new(&self.machine.tables.buckets);
        table.insert(address, entry).then_some(()).ok_or(Error::Full { what: "buckets", limit })
    }

    fn store_probe(&mut self, index: u32, data: &ProbeData) -> Result<(), Error> {
        self.enter(Call::StoreProbe)?;
        let (probe, data) = (self.probe(index)?, *data);
        self.write(move |_| data.store(probe));
        Ok(())
    }

    fn set_state(&mut self, index: u32, state: u32) -> Result<(), Error> {
        self.enter(Call::SetState)?;
        let to = &self.probe(index)?.state;
        self.write(move |_| set_half(to, state));
        Ok(())
    }

    fn set_first(&mut self, site: u32, first: u32) -> Result<(), Error> {
        self.enter(Call::SetFirst)?;
        let to = &self.site(site)?.first;
        self.write(move |_| set_half(to, first));
        Ok(())
    }

    fn set_next(&mut self, probe: u32, next: u32) -> Result<(), Error> {
        self.enter(Call::SetNext)?;
        let to = &self.probe(probe)?.next;
        self.write(move |_| set_half(to, next));
        Ok(())
    }

    fn set_armed(&mut self, site: u32, armed: bool) -> Result<(), Error> {
        self.enter(Call::SetArmed)?;
        let to = &self.site(site)?.state;
        self.write(move |_| set_half(to, if armed { Site::ARMED } else { 0 }));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let machine = self.machine;
        self.kept_back.iter_mut().flat_map(core::mem::take).for_each(|write| write(machine));
        Ok(())
    }

    fn patch(&mut self, bytes: &[(u64, u8)]) -> Result<(), Error> {
        self.assert_flushed();
        let entered = self.enter(Call::Patch);
        let count = if entered.is_ok() { bytes.len() } else { self.patched_before_failure };
        for (i, &(address, byte)) in bytes.iter().take(count).enumerate() {
            if i > 0 {
                pause();
            }
            self.written(address, &[byte])?;
        }
        entered
    }

    fn grace(&mut self) -> bool {
        self.assert_flushed();
        // It cannot fail; a failure that is due here is that of the next call.
        let _ = self.enter(Call::Grace);
        let words = &self.machine.tables.active;
        let inside: Vec<u64> = ActiveSet::new(words).members().collect();
        while words.iter().any(|w| inside.contains(&w.load(Ordering::SeqCst))) {
            assert!(wait_for_others(), "a handler waits for itself");
        }
        true
    }
}
