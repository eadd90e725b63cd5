//! What kprobes asks of this kernel: all that the author of a kernel writes.

use super::ENGINE;
use crate::arch::{cpu, ipi, time};
use crate::mm::{alias, exec};
use crate::{ksyms, sched};
use alloc::string::{String, ToString};
use core::ops::Range;
use host_bare::{Engine, Kernel, Symbol};

/// This kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demo;

unsafe extern "C" {
    static __kprobes_text_start: [u8; 0];
    static __kprobes_text_end: [u8; 0];
}

fn symbol(symbol: ksyms::Symbol) -> Symbol {
    let ksyms::Symbol { address, size, .. } = symbol;
    Symbol { name: symbol.name.to_string(), address, size, is_function: symbol.is_function() }
}

// SAFETY: processors are numbered once and know their number; text and code are written by `alias::write` alone, which
// writes what it is told; the trap stubs restore the registers of the frame.
unsafe impl Kernel for Demo {
    fn engine() -> Option<&'static Engine<Self>> {
        ENGINE.get()
    }

    fn processor() -> usize {
        cpu::id()
    }

    fn thread() -> u64 {
        sched::current()
    }

    fn thread_name(out: &mut [u8; 16]) {
        for (to, &from) in out.iter_mut().zip(sched::current_name().as_bytes()) {
            *to = from;
        }
    }

    fn now() -> u64 {
        time::now_ns()
    }

    fn processors() -> usize {
        cpu::count()
    }

    fn symbol_at(address: u64) -> Option<Symbol> {
        ksyms::at(address).map(|(found, _)| symbol(found))
    }

    fn symbol(name: &str) -> Result<Symbol, String> {
        ksyms::lookup(name).map(symbol).map_err(|error| error.to_string())
    }

    fn is_text(address: u64) -> bool {
        alias::is_text(address)
    }

    fn is_noprobe(address: u64) -> bool {
        ((&raw const __kprobes_text_start) as u64..(&raw const __kprobes_text_end) as u64).contains(&address)
    }

    fn allocate_code(bytes: usize) -> Option<u64> {
        exec::try_alloc(bytes)
    }

    fn code_range() -> Range<u64> {
        exec::PADS
    }

    fn allocate_code_at(page: u64) -> bool {
        exec::alloc_at(page)
    }

    fn write_text(address: u64, bytes: &[u8]) -> bool {
        alias::write(address, bytes).is_ok()
    }

    fn handler_faulted(regs: &host_bare::Regs) {
        super::modules::handler_faulted(regs);
    }

    fn sync_processors() {
        ipi::on_all(cpu::serialize);
    }
}
