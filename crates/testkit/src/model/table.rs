//! The probe table of a machine: the words that both halves share.

use super::plain::{words, zeroed};
use super::{STUB_STRIDE, STUBS};
use arch::x86::handlers::Running;
use hit::returns::{Instance, Pool, Returns};
use hit::{Counters, Marks, Probe, Site, Stepping};
use sync::primitive::{AtomicU32, AtomicU64, Ordering};
use sync::{Bucket, WINDOW};

/// Everything that [`hit`] reads.
///
/// ```
/// use sync::primitive::Ordering::Relaxed;
/// use testkit::model::{Tables, halves};
///
/// let tables = Tables::new(4);
/// assert_eq!(tables.returns().instances.len(), 4);
/// tables.counters[1].hits.store(3, Relaxed);
/// tables.counters[1].missed.store(1, Relaxed);
/// assert_eq!(tables.counts(1), [3, 0, 0, 1, 0]);
/// assert!(halves(&tables.probes[0]).iter().all(|half| half.load(Relaxed) == 0), "no probe yet");
/// ```
#[derive(Debug)]
pub struct Tables {
    /// Address of a breakpoint to index of its site.
    pub buckets: Box<[Bucket]>,
    /// Sites.
    pub sites: Box<[Site]>,
    /// What sites' slots mean.
    pub marks: Box<[Marks]>,
    /// The steps that threads are in the middle of: by identity, as if each had a processor of its own.
    pub steppings: Box<[Stepping]>,
    /// The handlers that threads run, likewise.
    pub runnings: Box<[Running]>,
    /// Probes.
    pub probes: Box<[Probe]>,
    /// Counters, by id.
    pub counters: Box<[Counters]>,
    /// Threads in handlers.
    pub active: Box<[AtomicU64]>,
    /// The words of the pool of instances: one element.
    pub pool: Box<[Pool]>,
    /// Instances of return probes.
    pub instances: Box<[Instance]>,
}

impl Tables {
    /// Empty tables, with this many instances of return probes.
    #[must_use]
    pub fn new(instances: usize) -> Self {
        Self {
            buckets: zeroed(256),
            sites: zeroed(128),
            marks: zeroed(128),
            steppings: (0..16).map(|_| Stepping::new()).collect(),
            runnings: (0..16).map(|_| Running::new()).collect(),
            probes: zeroed(512),
            counters: (0..128).map(|_| Counters::new()).collect(),
            active: (0..4 * WINDOW).map(|_| AtomicU64::new(0)).collect(),
            pool: zeroed(1),
            instances: zeroed(instances),
        }
    }

    /// The instances as [`hit`] sees them.
    #[must_use]
    pub fn returns(&self) -> Returns<'_> {
        let [pool] = &*self.pool else { unreachable!("made with one element") };
        Returns { pool, instances: &self.instances, stubs: STUBS, stride: STUB_STRIDE }
    }

    /// How often a probe with this id was hit, returned, unwound, missed, lost.
    #[must_use]
    pub fn counts(&self, id: u32) -> [u64; 5] {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        self.counters
            .get(id as usize)
            .map_or([0; 5], |c| [&c.hits, &c.returns, &c.unwound, &c.missed, &c.lost].map(read))
    }

    /// Copies all that a forked child inherits from `parent`.
    pub(crate) fn inherit(&self, parent: &Self) {
        copy(words(&parent.buckets), words(&self.buckets));
        copy(words(&parent.sites), words(&self.sites));
        for (from, to) in parent.probes.iter().zip(&self.probes) {
            for (from, to) in halves(from).into_iter().zip(halves(to)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            for (from, to) in full(from).into_iter().zip(full(to)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        copy(words(&parent.pool), words(&self.pool));
        copy(words(&parent.instances), words(&self.instances));
    }
}

fn copy(from: &[AtomicU64], to: &[AtomicU64]) {
    for (from, to) in from.iter().zip(to) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// All of a probe but its `data` and its handlers.
#[must_use]
pub fn halves(p: &Probe) -> [&AtomicU32; 10] {
    [&p.state, &p.kind, &p.id, &p.next, &p.code, &p.code_length, &p.bit, &p.maxactive, &p.flags, &p.active]
}

/// Its `data` and its handlers, without the data that belongs to one process.
fn full(p: &Probe) -> [&AtomicU64; 5] {
    let h = &p.handlers;
    [&p.data, &h.before, &h.after, &h.fault, &h.user]
}
