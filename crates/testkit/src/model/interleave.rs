//! Actors that take turns by a plan: one runs, all others wait.
//!
//! Each actor is a thread of the test's process, so that it may be stopped in the middle of a call; but only one runs
//! at a time, and it hands over only where it pauses, so a run is determined by its plan.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

thread_local! {
    static SELF: Cell<Option<usize>> = const { Cell::new(None) };
    static STAGE: std::cell::RefCell<Option<Arc<Stage>>> = const { std::cell::RefCell::new(None) };
}

#[derive(Debug)]
struct Turns {
    now: usize,
    left: usize,
    plan: VecDeque<(usize, usize)>,
    over: Vec<bool>,
    pauses: Vec<usize>,
}

#[derive(Debug)]
struct Stage {
    turns: Mutex<Turns>,
    changed: Condvar,
}

/// One actor's part.
pub type Actor<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs `actors` to their ends by `plan`: actor number `a` goes on through `n` pauses and stops at the one after them,
/// then the next line of the plan. After the plan, actors run to their ends in order. Gives how often each has paused.
///
/// # Panics
///
/// When an actor panics.
///
/// ```
/// use std::sync::Mutex;
/// use testkit::model::interleave::{pause, run};
///
/// let said = Mutex::new(String::new());
/// let say = |what| said.lock().unwrap().push_str(what);
/// let actor = |words: [&'static str; 3]| move || words.into_iter().for_each(|word| { say(word); pause(); });
/// // The first goes on beyond one pause and stops at the next, the second stops at its first one.
/// let pauses = run(&[(0, 1), (1, 0)], vec![Box::new(actor(["a", "b", "c"])), Box::new(actor(["x", "y", "z"]))]);
/// assert_eq!(*said.lock().unwrap(), "abxcyz");
/// assert_eq!(pauses, [3, 3]);
/// ```
#[must_use]
pub fn run(plan: &[(usize, usize)], actors: Vec<Actor<'_>>) -> Vec<usize> {
    let turns = Turns {
        now: 0,
        left: 0,
        plan: plan.iter().copied().collect(),
        over: vec![false; actors.len()],
        pauses: vec![0; actors.len()],
    };
    let stage = Arc::new(Stage { turns: Mutex::new(turns), changed: Condvar::new() });
    stage.lock().next();
    std::thread::scope(|scope| {
        for (me, part) in actors.into_iter().enumerate() {
            let stage = stage.clone();
            scope.spawn(move || perform(&stage, me, part));
        }
    });
    let turns = stage.lock();
    turns.pauses.clone()
}

fn perform(stage: &Arc<Stage>, me: usize, part: Actor<'_>) {
    /// Hands over also when the actor panics.
    struct Leave<'a>(&'a Stage, usize);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            let mut turns = self.0.lock();
            if let Some(over) = turns.over.get_mut(self.1) {
                *over = true;
            }
            turns.next();
            self.0.changed.notify_all();
        }
    }
    SELF.set(Some(me));
    STAGE.set(Some(stage.clone()));
    let _leave = Leave(stage, me);
    stage.wait(stage.lock(), me);
    part();
}

/// A point where another actor may go on. Outside of [`run`] nothing happens.
pub fn pause() {
    with_stage(|stage, me| {
        let mut turns = stage.lock();
        if let Some(pauses) = turns.pauses.get_mut(me) {
            *pauses += 1;
        }
        if turns.left == 0 {
            turns.next();
            stage.changed.notify_all();
        } else {
            turns.left -= 1;
        }
        stage.wait(turns, me);
    });
}

/// The actor waits for another one to do something: one of the others goes on. False when there is none, or outside
/// of [`run`].
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// use testkit::model::interleave::{pause, run, wait_for_others};
///
/// let ready = AtomicBool::new(false);
/// let waits = || while !ready.load(Relaxed) {
///     assert!(wait_for_others(), "somebody else must do it");
/// };
/// let works = || { pause(); pause(); ready.store(true, Relaxed); };
/// // The second is asked three times to go on: as far as each pause, and to the end.
/// assert_eq!(run(&[], vec![Box::new(waits), Box::new(works)]), [0, 2]);
/// assert!(!wait_for_others(), "nobody else is here");
/// ```
#[must_use]
pub fn wait_for_others() -> bool {
    let mut possible = false;
    with_stage(|stage, me| {
        let mut turns = stage.lock();
        let other = (0..turns.over.len()).find(|&a| a != me && turns.over.get(a) == Some(&false));
        let Some(other) = other else { return };
        possible = true;
        turns.now = other;
        turns.left = 0;
        turns.plan.push_front((me, 0));
        stage.changed.notify_all();
        stage.wait(turns, me);
    });
    possible
}

fn with_stage(f: impl FnOnce(&Stage, usize)) {
    let stage = STAGE.with_borrow(Clone::clone);
    if let (Some(stage), Some(me)) = (stage, SELF.get()) {
        f(&stage, me);
    }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, mut turns: MutexGuard<'_, Turns>, me: usize) {
        while turns.now != me {
            turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Turns {
    /// Who goes on, and for how many pauses.
    fn next(&mut self) {
        while let Some((actor, pauses)) = self.plan.pop_front() {
            if self.over.get(actor) == Some(&false) {
                (self.now, self.left) = (actor, pauses);
                return;
            }
        }
        if let Some(actor) = self.over.iter().position(|over| !over) {
            (self.now, self.left) = (actor, usize::MAX);
        }
    }
}
