//! Native and probed runs of forms, compared.

use super::bench::{self, Area, CELLS, End, Outcome};
use super::form::Form;
use super::random::{Random, digest};
use super::state::State;
use crate::probes::plain::{self, Plain};
use crate::probes::tests::check;
use crate::probes::with_control;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use host_bare::{Listed, Stepping};

/// The ways to be asked for.
pub(super) const WAYS: [Stepping; 5] = Stepping::ALL;
/// All states come from here.
const SEED: u64 = 0x006B_7072_6F62_6573;
/// Differences that are kept, to be shown.
const KEPT: usize = 4;

/// What to do besides, to prove that it is seen.
pub(super) struct Tamper<'a> {
    /// Before probes are planted.
    pub(super) before: &'a dyn Fn(&Area) -> Result<(), String>,
    /// When they are planted.
    pub(super) planted: &'a dyn Fn(&Area) -> Result<(), String>,
    /// A handler in place of a probe that counts.
    pub(super) handler: Option<Plain>,
}

/// Nothing besides.
pub(super) const HONEST: Tamper<'static> = Tamper { before: &|_| Ok(()), planted: &|_| Ok(()), handler: None };

/// How an instruction was executed: the words of the placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Emulated,
    Boosted,
    SecondBreakpoint,
    SingleStep,
    Jump,
}

impl Way {
    /// Whether something else may come out when this is the best way, and `stepping` is asked for.
    fn differs(self, stepping: Stepping) -> bool {
        match stepping {
            Stepping::Best => false,
            Stepping::Boosted => self != Self::Boosted,
            Stepping::SecondBreakpoint => self != Self::Emulated,
            Stepping::SingleStep | Stepping::Jump => true,
        }
    }

    fn of(listed: &Listed) -> Result<Self, String> {
        match listed.placement.as_str() {
            "breakpoint, emulated" => Ok(Self::Emulated),
            "breakpoint, boosted" => Ok(Self::Boosted),
            "breakpoint, second breakpoint" => Ok(Self::SecondBreakpoint),
            "breakpoint, single step" => Ok(Self::SingleStep),
            "jump" => Ok(Self::Jump),
            other => Err(format!("{other} is no placement of an instruction")),
        }
    }
}

/// How the forms of a class were executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    /// How many there are.
    pub(super) forms: usize,
    /// How many were planted, by [`Way`].
    pub(super) planted: [usize; 5],
}

/// What was compared.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Comparisons of a probed run with the native one.
    pub(super) cases: u64,
    /// By [`Way`].
    pub(super) by_way: [u64; 5],
    /// Comparisons in which both have faulted.
    pub(super) faults: u64,
    /// Comparisons with interrupts on.
    pub(super) interruptible: u64,
    /// By class.
    pub(super) classes: Vec<Class>,
    /// Forms that the engine refuses, and why.
    pub(super) refused: Vec<String>,
    /// How many comparisons have failed.
    pub(super) failed: u64,
    /// Some of those.
    pub(super) differences: Vec<Difference>,
}

/// A comparison that has failed.
#[derive(Debug)]
pub(super) struct Difference {
    form: Form,
    address: u64,
    seed: u64,
    way: Way,
    native: Outcome,
    probed: Outcome,
    /// What is not the same.
    pub(super) fields: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { form, address, seed, way, native, probed, fields } = self;
        let start = State::new(form, *seed).regs;
        write!(f, "{form:?} at {address:#x}, seed {seed:#x}, {way:?}: {fields:?} differ; from {start:x?}; ")?;
        write!(f, "in place {:x?} {:x?}, instead {:x?} {:x?}", native.end, native.regs, probed.end, probed.regs)
    }
}

/// The names of what differs.
pub(super) fn fields(native: &Outcome, probed: &Outcome) -> Vec<String> {
    let mut fields = Vec::new();
    let mut compare = |name: &str, same: bool| fields.extend((!same).then(|| name.to_string()));
    compare("end", native.end == probed.end);
    for (number, (a, b)) in native.regs.gpr.iter().zip(&probed.regs.gpr).enumerate() {
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        compare(NAMES[number], a == b);
    }
    compare("rip", native.regs.rip == probed.regs.rip);
    compare("flags", native.regs.flags == probed.regs.flags);
    compare("segments", native.segments == probed.segments);
    compare("data", native.data == probed.data);
    compare("stack", native.stack == probed.stack);
    fields
}

/// Compares `states` runs of each form, each way, with the instruction in place.
pub(super) fn compare(forms: &[Form], states: u64, tamper: &Tamper<'_>) -> Result<Summary, String> {
    let area = Area::new();
    let mut summary = Summary::default();
    for forms in forms.chunks(CELLS) {
        Chunk { area: &area, forms, states, tamper }.compare(&mut summary)?;
    }
    Ok(summary)
}

/// Forms that have a place at once.
struct Chunk<'a> {
    area: &'a Area,
    forms: &'a [Form],
    states: u64,
    tamper: &'a Tamper<'a>,
}

impl Chunk<'_> {
    fn compare(&self, summary: &mut Summary) -> Result<(), String> {
        self.area.fill(self.forms)?;
        let native: Vec<Vec<Outcome>> = (0..self.forms.len()).map(|cell| self.runs(cell).collect()).collect();
        (self.tamper.before)(self.area)?;
        self.forms.iter().for_each(|form| summary.class(form.class).forms += 1);
        let mut best = Vec::new();
        for stepping in WAYS {
            let ways = self.plant(stepping, &best, &mut summary.refused)?;
            for (cell, way) in ways.iter().enumerate() {
                self.probed(cell, *way, &native[cell], summary);
            }
            self.remove(&ways)?;
            if best.is_empty() {
                best = ways;
            }
        }
        Ok(())
    }

    /// Compares the runs of a probed cell with the native ones.
    fn probed(&self, cell: usize, way: Option<Way>, native: &[Outcome], summary: &mut Summary) {
        let class = summary.class(self.forms[cell].class);
        let Some(way) = way else { return };
        class.planted[way as usize] += 1;
        for (state, probed) in self.runs(cell).enumerate() {
            summary.add(&self.forms[cell], cell, self.seed(cell, state as u64), way, &native[state], probed);
        }
    }

    fn seed(&self, cell: usize, state: u64) -> u64 {
        let bytes = self.forms[cell].bytes().iter().map(|&byte| u64::from(byte));
        Random::new(SEED ^ digest(bytes) ^ state << 48).next()
    }

    /// Runs the form of a cell from each state.
    fn runs(&self, cell: usize) -> impl Iterator<Item = Outcome> {
        let form = &self.forms[cell];
        (0..self.states)
            .map(move |state| self.area.run(bench::address(cell), &State::new(form, self.seed(cell, state))))
    }

    /// Puts a probe on each form, and gives how it is placed if it is. Forms are left out whose best way is what would
    /// come out again, and those that are refused; the latter are told of once.
    fn plant(
        &self,
        stepping: Stepping,
        best: &[Option<Way>],
        refusals: &mut Vec<String>,
    ) -> Result<Vec<Option<Way>>, String> {
        let cells = (0..self.forms.len()).filter(|&cell| match best.get(cell) {
            Some(&best) => best.is_some_and(|best| best.differs(stepping)),
            None => true,
        });
        let addresses: Vec<u64> = cells.map(bench::address).collect();
        let listed: Vec<Listed> = with_control(|control| {
            control.set_stepping(stepping);
            let refused = match self.tamper.handler {
                None => control.count_all("differential", &addresses),
                Some(handler) => {
                    let attach = |&at: &u64| {
                        plain::attach(control, &format!("differential_{at:x}"), at, handler)
                            .err()
                            .map(|error| (at, error))
                    };
                    addresses.iter().filter_map(attach).collect()
                }
            };
            control.set_stepping(Stepping::default());
            for (address, why) in refused {
                let cell = (0..self.forms.len()).find(|&cell| bench::address(cell) == address);
                refusals.push(format!("{:?}: {why}", cell.map(|cell| self.forms[cell])));
            }
            control.list().collect()
        })?;
        if !listed.is_empty() {
            (self.tamper.planted)(self.area)?;
        }
        let at = |cell| listed.iter().find(|one| one.address == bench::address(cell));
        (0..self.forms.len()).map(|cell| at(cell).map(Way::of).transpose()).collect()
    }

    /// Takes the probes off. Each was hit by each run.
    fn remove(&self, ways: &[Option<Way>]) -> Result<(), String> {
        let hits: Vec<(u64, u64)> = with_control(|control| {
            let hits = control.list().map(|one| (one.address, one.counts.hits)).collect();
            let removed = control.remove_all().map_err(|error| error.to_string());
            control.records();
            removed.map(|()| hits)
        })??;
        check(hits.len() == ways.iter().flatten().count(), || "a probe was lost".to_string())?;
        match hits.iter().find(|&&(_, hits)| hits != self.states) {
            Some((at, hits)) => Err(format!("the probe at {at:#x} was hit {hits} times in {} runs", self.states)),
            None => Ok(()),
        }
    }
}

impl Summary {
    fn class(&mut self, name: &'static str) -> &mut Class {
        let index = self.classes.iter().position(|class| class.name == name).unwrap_or_else(|| {
            self.classes.push(Class { name, forms: 0, planted: [0; 5] });
            self.classes.len() - 1
        });
        &mut self.classes[index]
    }

    fn add(&mut self, form: &Form, cell: usize, seed: u64, way: Way, native: &Outcome, probed: Outcome) {
        self.cases += 1;
        self.by_way[way as usize] += 1;
        self.faults += u64::from(native.end != End::Arrived);
        self.interruptible += u64::from(native.regs.flags & isa::x86::flags::IF != 0);
        if *native == probed {
            return;
        }
        self.failed += 1;
        if self.differences.len() < KEPT {
            let fields = fields(native, &probed);
            let (form, address, native) = (*form, bench::address(cell), *native);
            self.differences.push(Difference { form, address, seed, way, native, probed, fields });
        }
    }
}
