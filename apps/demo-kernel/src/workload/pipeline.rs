//! Threads that pass numbers on: two put them into a queue that holds few, two take them out.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::lock::IrqLock;
use crate::sched;

const NUMBERS: u64 = 2000;
const CAPACITY: usize = 16;
const PRODUCERS: usize = 2;
const CONSUMERS: usize = 2;

/// What the threads of a run share.
struct Pipeline {
    queue: IrqLock<VecDeque<u64>>,
    /// Tells the producers apart.
    producers: AtomicU64,
    taken: AtomicU64,
    sum: AtomicU64,
}

/// The runs under way, by number: a thread is given one number when it starts.
static RUNS: IrqLock<BTreeMap<usize, Arc<Pipeline>>> = IrqLock::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The sum of what was taken out.
pub(super) fn run() -> Result<u64, String> {
    let run = NEXT.fetch_add(1, Ordering::Relaxed);
    let pipeline = Arc::new(Pipeline {
        queue: IrqLock::new(VecDeque::with_capacity(CAPACITY)),
        producers: AtomicU64::new(0),
        taken: AtomicU64::new(0),
        sum: AtomicU64::new(0),
    });
    RUNS.lock().insert(run, Arc::clone(&pipeline));
    let producers = [("producer", produce as fn(usize)); PRODUCERS];
    let consumers = [("consumer", consume as fn(usize)); CONSUMERS];
    let start = |(name, entry): (&'static str, fn(usize))| sched::spawn(name, entry, run);
    let threads: Vec<_> = producers.into_iter().chain(consumers).map(start).collect();
    threads.into_iter().for_each(sched::join);
    RUNS.lock().remove(&run);
    if pipeline.taken.load(Ordering::Relaxed) != NUMBERS {
        return Err("not as many numbers came out as went in".to_string());
    }
    Ok(pipeline.sum.load(Ordering::Relaxed))
}

fn pipeline(run: usize) -> Option<Arc<Pipeline>> {
    RUNS.lock().get(&run).cloned()
}

fn produce(run: usize) {
    let Some(pipeline) = pipeline(run) else { return };
    let first = pipeline.producers.fetch_add(1, Ordering::Relaxed) + 1;
    for number in (first..=NUMBERS).step_by(PRODUCERS) {
        while !put(&pipeline, number) {
            sched::yield_now();
        }
    }
}

fn consume(run: usize) {
    let Some(pipeline) = pipeline(run) else { return };
    while pipeline.taken.load(Ordering::Acquire) < NUMBERS {
        match take(&pipeline) {
            Some(number) => account(&pipeline, number),
            None => sched::yield_now(),
        }
    }
}

/// False if the queue is full.
#[inline(never)]
fn put(pipeline: &Pipeline, number: u64) -> bool {
    let mut queue = pipeline.queue.lock();
    let room = queue.len() < CAPACITY;
    if room {
        queue.push_back(number);
    }
    room
}

#[inline(never)]
fn take(pipeline: &Pipeline) -> Option<u64> {
    pipeline.queue.lock().pop_front()
}

#[inline(never)]
fn account(pipeline: &Pipeline, number: u64) {
    pipeline.sum.fetch_add(number, Ordering::Relaxed);
    // The last one ends the consumers, so its number must be in the sum before.
    pipeline.taken.fetch_add(1, Ordering::Release);
}
