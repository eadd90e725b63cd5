//! Notifiers: functions that are asked about breakpoints that are nobody's.

use super::Hit;
use super::control::Control;
use super::error::{Error, Result};
use crate::abi::Home;
use crate::abi::notifiers::{NO_COUNTERS, NOTIFIERS, Notifier, order};
use hit::{Kind, Probe, live};
use kprobes::Host;
use sync::primitive::{Ordering, fence};

/// What a notifier says of a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Ask the next (Linux: `NOTIFY_DONE`).
    Pass = 0,
    /// It was mine, and is done (Linux: `NOTIFY_STOP`): execution goes on at the registers.
    Stop = 1,
}

/// Is asked about a trap that is no probe's.
///
/// [`Hit::trap`] is 3, a breakpoint; [`Hit::address`] is that of the instruction, if it is the usual one of one byte. The
/// program counter is behind it.
pub type NotifierHandler = extern "C" fn(&mut Hit<'_>) -> Verdict;

/// A notifier that is registered.
#[derive(Debug)]
pub struct Notified {
    index: usize,
    order: u64,
}

/// The places that are taken, with their notifiers' [`order`]; 0 is free.
#[derive(Debug, Default)]
pub(crate) struct Notifiers([u64; NOTIFIERS]);

impl Notifiers {
    /// Takes a place for a notifier.
    fn take(&mut self, priority: i32) -> Result<Notified> {
        let full = Error::NotifiersFull { limit: NOTIFIERS };
        let latest = self.0.iter().map(|&order| order as u32).max().unwrap_or(0);
        let serial = latest.checked_add(1).ok_or(Error::NotifiersFull { limit: u32::MAX as usize })?;
        let index = self.0.iter().position(|&order| order == 0).ok_or(full)?;
        let order = order(priority, serial);
        self.0.iter_mut().skip(index).take(1).for_each(|place| *place = order);
        Ok(Notified { index, order })
    }

    fn find(&self, notified: &Notified) -> Result<usize> {
        let same = self.0.get(notified.index).is_some_and(|&order| order == notified.order);
        same.then_some(notified.index).ok_or(Error::Gone)
    }

    fn count(&self) -> u32 {
        self.0.iter().filter(|&&order| order != 0).count() as u32
    }
}

impl Control {
    /// Registers a notifier, which keeps the rules of handlers.
    pub(crate) fn notify(&mut self, priority: i32, handler: NotifierHandler) -> Result<Notified> {
        let notified = self.notifiers.take(priority)?;
        let home = self.home_of_agent();
        if let Some(Notifier { order, record }) = home.notifiers.table.get(notified.index) {
            order.store(notified.order, Ordering::Relaxed);
            record.kind.store(Kind::Handler.code(), Ordering::Relaxed);
            record.id.store(NO_COUNTERS, Ordering::Relaxed);
            record.handlers.user.store(handler as *const () as u64, Ordering::Relaxed);
            record.state.store(Probe::REGISTERED, Ordering::Release);
        }
        home.notifiers.present.store(self.notifiers.count(), Ordering::Relaxed);
        Ok(notified)
    }

    /// Takes a notifier out, and waits until nobody asks it any more.
    pub(crate) fn unnotify(&mut self, notified: &Notified) -> Result<()> {
        let index = self.notifiers.find(notified)?;
        let home = self.home_of_agent();
        if let Some(Notifier { record, .. }) = home.notifiers.table.get(index) {
            record.state.store(0, Ordering::Release);
        }
        // A thread enters the active set and then looks at the table; here it is the other way round.
        fence(Ordering::SeqCst);
        // Nobody waits for us: there is no mailbox in use.
        let _ = self.target.grace();
        self.notifiers.0.iter_mut().skip(index).take(1).for_each(|place| *place = 0);
        home.notifiers.present.store(self.notifiers.count(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether a notifier is asked still: it has not faulted.
    pub(crate) fn is_asked(&self, notified: &Notified) -> Result<bool> {
        let index = self.notifiers.find(notified)?;
        let notifier = self.home_of_agent().notifiers.table.get(index);
        Ok(notifier.is_some_and(|notifier| live(&notifier.record.state)))
    }

    fn home_of_agent(&self) -> &'static Home {
        // SAFETY: `inject` has mapped a `Home` in this process, which stays mapped; it is all atomics.
        unsafe { &*(self.home() as *const Home) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_ordered_by_time_and_places_are_used_again() {
        let mut notifiers = Notifiers::default();
        let all: Vec<Notified> = (0..NOTIFIERS).map(|_| notifiers.take(7).unwrap()).collect();
        assert!(all.is_sorted_by_key(|n| n.order));
        assert!(matches!(notifiers.take(0), Err(Error::NotifiersFull { limit: NOTIFIERS })));
        let freed = notifiers.find(&all[3]).unwrap();
        notifiers.0[freed] = 0;
        let again = notifiers.take(7).unwrap();
        assert!(again.index == 3 && again.order > all[NOTIFIERS - 1].order);
        assert!(matches!(notifiers.find(&all[3]), Err(Error::Gone)));
        assert_eq!(notifiers.count(), NOTIFIERS as u32);
    }
}
