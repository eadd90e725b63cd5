//! An event becomes a record in the processor's ring.

use crate::tables::PAYLOAD_BYTES;
use crate::trap::{Guarded, TrapHost};
use crate::{Kernel, Regs};
use arch::x86::{Fetch, Reader};
use events::wire::Header;
use hit::{Cause, Host, Probe};
use sync::primitive::Ordering;

/// Records an event; false when there was no room.
#[inline(never)]
pub(crate) fn write<K: Kernel>(host: &TrapHost<'_, K>, probe: &Probe, regs: &Regs, cause: Cause<'_>) -> bool {
    host.processor.with_payload(|payload| write_with(host, probe, regs, cause, payload)).unwrap_or(false)
}

fn write_with<K: Kernel>(
    host: &TrapHost<'_, K>,
    probe: &Probe,
    regs: &Regs,
    cause: Cause<'_>,
    payload: &mut [u8; PAYLOAD_BYTES],
) -> bool {
    let reader = Guarded::<K>(core::marker::PhantomData);
    let source = Fetch { reader, regs, cause };
    let (at, length) = (probe.code.load(Ordering::Relaxed), probe.code_length.load(Ordering::Relaxed));
    // SAFETY: control appends a program before it publishes the probe that names it.
    let code = unsafe { host.engine.tables.programs.get(at as usize, length as usize) };
    let length = events::run(code, &source, payload).min(PAYLOAD_BYTES);
    let caller = match cause {
        Cause::Hit => 0,
        Cause::Return(instance) => {
            let to = instance.return_address.load(Ordering::Relaxed);
            host.returns().true_return_address(to)
        }
        Cause::ReturnSite => source.word(regs.rsp()).unwrap_or(0),
    };
    let is_return = !matches!(cause, Cause::Hit);
    let mut name = [0; 16];
    K::thread_name(&mut name);
    let half = |at: usize| name.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let header = Header {
        event: probe.id.load(Ordering::Relaxed),
        is_return,
        time: K::now(),
        thread: K::thread_number(),
        cpu: K::processor() as u32,
        process: 0,
        address: if is_return { probe.data.load(Ordering::Relaxed) } else { regs.rip },
        caller,
        name: [half(0), half(8)],
    };
    let words = header.words(payload.get(..length).unwrap_or_default());
    host.processor.records.ring().push(header.tag(), words)
}

impl<K: Kernel> Reader for Guarded<K> {
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        K::read(address, out)
    }

    fn read_string(&self, address: u64, out: &mut [u8]) -> Option<usize> {
        let mut length = 0;
        while length < out.len() {
            // Aligned words do not cross into a page that may not be there.
            let at = address.wrapping_add(length as u64);
            let skip = (at & 7) as usize;
            let bytes = match K::read_word(at & !7) {
                Some(word) => word.to_le_bytes(),
                // What was read so far is no whole string.
                None => return None,
            };
            for &byte in bytes.iter().skip(skip) {
                if byte == 0 {
                    return Some(length);
                }
                match out.get_mut(length) {
                    Some(to) => *to = byte,
                    None => return Some(length),
                }
                length += 1;
            }
        }
        Some(length)
    }

    fn comm(&self, out: &mut [u8; 16]) {
        K::thread_name(out);
    }
}
