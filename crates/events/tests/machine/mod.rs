//! A probed thread made up of registers and a few bytes of memory.

use std::collections::BTreeMap;

use events::{Program, Resolve, Source, compile, parse};

/// Registers by number, and memory: all that is not there faults.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) registers: [u64; 18],
    pub(crate) return_value: u64,
    pub(crate) memory: BTreeMap<u64, u8>,
    /// `demo` if none is given.
    pub(crate) thread_name: Option<String>,
}

impl Machine {
    pub(crate) fn map(&mut self, addr: u64, bytes: &[u8]) {
        self.memory.extend((addr..).zip(bytes.iter().copied()));
    }
}

impl Source for Machine {
    fn register(&self, index: u8) -> u64 {
        self.registers.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn return_value(&self) -> u64 {
        self.return_value
    }

    fn comm(&self, out: &mut [u8; 16]) {
        let name = self.thread_name.as_deref().unwrap_or("demo");
        out.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    }

    fn read(&self, addr: u64, out: &mut [u8]) -> bool {
        (0..).zip(out).all(|(at, byte)| self.memory.get(&addr.wrapping_add(at)).map(|there| *byte = *there).is_some())
    }

    fn read_string(&self, addr: u64, out: &mut [u8]) -> Option<usize> {
        for (at, byte) in (0..).zip(out.iter_mut()) {
            match self.memory.get(&addr.wrapping_add(at))? {
                0 => return usize::try_from(at).ok(),
                there => *byte = *there,
            }
        }
        Some(out.len())
    }
}

/// A target that has the symbol `known` at 0x1000, and its file mapped at 0x4000.
pub(crate) struct Target;

impl Resolve for Target {
    fn symbol(&self, _: Option<&str>, name: &str) -> Option<u64> {
        (name == "known").then_some(0x1000)
    }

    fn file_offset(&self, offset: u64) -> Option<u64> {
        (offset < 0x1000).then_some(0x4000 + offset)
    }
}

pub(crate) fn program(line: &str) -> Program {
    compile(&parse(line).unwrap_or_else(|error| panic!("{}", error.render(line))), &Target).expect("a program")
}
