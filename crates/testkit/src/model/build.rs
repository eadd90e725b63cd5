//! Programs for the machine, assembled by hand.

use super::{Service, TEXT};

/// A function of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name.
    pub name: &'static str,
    /// Its first instruction.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Words that it keeps on the stack below its return address, where it calls. What an unwind table says.
    pub frame_words: u64,
    /// Where exceptions land in it.
    pub landing_pad: Option<u64>,
}

/// A program under construction. Each method that names an instruction appends it.
///
/// ```
/// use testkit::model::{End, Machine, Program, TEXT};
///
/// let mut p = Program::new();
/// p.function("seven", 0);
/// p.nop();
/// p.mov_eax(7);
/// p.ret();
/// // It keeps one word on the stack where it calls: that is what an unwinder is told.
/// let main = p.function("main", 1);
/// p.push_rbp();
/// p.call("seven");
/// p.inc_rax();
/// p.pop_rbp();
/// p.ret();
/// assert_eq!((p.find("seven").start, p.find("main").start), (TEXT, main));
/// // `push`, `call`, `inc`, `pop` and `ret` have 1, 5, 3, 1 and 1 bytes.
/// assert_eq!(p.here(), main + 11);
///
/// let mut machine = Machine::new(p, 0);
/// let top = machine.add_stack(0x7000_0000);
/// let mut cpu = machine.start(1, main, top);
/// assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
/// assert_eq!(cpu.regs.gpr[0], 8);
/// ```
#[derive(Debug, Default)]
pub struct Program {
    pub(crate) code: Vec<u8>,
    /// The functions so far.
    pub functions: Vec<FunctionInfo>,
    pub(crate) services: Vec<(u64, Service)>,
    /// Displacements to fill in: their offset, and the name of the function that they lead to.
    calls: Vec<(usize, &'static str)>,
}

impl Program {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The address of the next instruction.
    #[must_use]
    pub fn here(&self) -> u64 {
        TEXT + self.code.len() as u64
    }

    /// Begins a function that keeps `frame_words` words on the stack where it calls.
    pub fn function(&mut self, name: &'static str, frame_words: u64) -> u64 {
        self.end();
        while !self.code.len().is_multiple_of(16) {
            self.code.push(0x90);
        }
        let start = self.here();
        self.functions.push(FunctionInfo { name, start, length: 0, frame_words, landing_pad: None });
        start
    }

    /// Exceptions land here in the current function.
    pub fn landing_pad(&mut self) {
        let here = self.here();
        if let Some(function) = self.functions.last_mut() {
            function.landing_pad = Some(here);
        }
    }

    /// Appends bytes, and gives their address.
    ///
    /// Control goes where the bytes say: by an address in a register, by a jump back.
    ///
    /// ```
    /// # use testkit::model::{End, Machine, Program};
    /// let mut p = Program::new();
    /// let next = p.function("next", 0);
    /// p.add_rdi(1);
    /// p.raw(&[0x48, 0x89, 0xF8]); // mov rax, rdi
    /// p.ret();
    /// let twice = p.function("twice", 1);
    /// let lea = p.lea_rax((next as i64 - (p.here() as i64 + 7)) as i32);
    /// p.call_rax();
    /// p.lea_rax((next as i64 - (p.here() as i64 + 7)) as i32);
    /// p.jmp_rax();
    /// let forever = p.function("forever", 0);
    /// p.jmp(forever);
    /// assert_eq!(lea, twice, "each method gives the address of what it appends");
    ///
    /// let mut machine = Machine::new(p, 0);
    /// let top = machine.add_stack(0x7000_0000);
    /// let mut cpu = machine.start(1, twice, top);
    /// assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
    /// assert_eq!(cpu.regs.gpr[0], 2);
    /// let mut cpu = machine.start(1, forever, top);
    /// assert_eq!(machine.run(&mut cpu, &mut (), 100), None, "it has not ended after a hundred steps");
    /// ```
    pub fn raw(&mut self, bytes: &[u8]) -> u64 {
        let at = self.here();
        self.code.extend_from_slice(bytes);
        at
    }

    /// `nop`
    pub fn nop(&mut self) -> u64 {
        self.raw(&[0x90])
    }

    /// `push rbp`
    pub fn push_rbp(&mut self) -> u64 {
        self.raw(&[0x55])
    }

    /// `pop rbp`
    pub fn pop_rbp(&mut self) -> u64 {
        self.raw(&[0x5D])
    }

    /// `ret`
    pub fn ret(&mut self) -> u64 {
        self.raw(&[0xC3])
    }

    /// `mov eax, value`
    pub fn mov_eax(&mut self, value: u32) -> u64 {
        let at = self.raw(&[0xB8]);
        self.raw(&value.to_le_bytes());
        at
    }

    /// `add rdi, value`
    pub fn add_rdi(&mut self, value: i8) -> u64 {
        self.raw(&[0x48, 0x83, 0xC7, value.cast_unsigned()])
    }

    /// `inc rax`
    pub fn inc_rax(&mut self) -> u64 {
        self.raw(&[0x48, 0xFF, 0xC0])
    }

    /// `lea rax, [rip+displacement]`
    pub fn lea_rax(&mut self, displacement: i32) -> u64 {
        let at = self.raw(&[0x48, 0x8D, 0x05]);
        self.raw(&displacement.to_le_bytes());
        at
    }

    /// `call rax`
    pub fn call_rax(&mut self) -> u64 {
        self.raw(&[0xFF, 0xD0])
    }

    /// `jmp rax`
    pub fn jmp_rax(&mut self) -> u64 {
        self.raw(&[0xFF, 0xE0])
    }

    /// `jmp target`, backwards
    pub fn jmp(&mut self, target: u64) -> u64 {
        let at = self.raw(&[0xE9]);
        let displacement = target.wrapping_sub(at + 5) as u32;
        self.raw(&displacement.to_le_bytes());
        at
    }

    /// `call name`, a function of this program's.
    pub fn call(&mut self, name: &'static str) -> u64 {
        self.transfer(0xE8, name)
    }

    fn transfer(&mut self, opcode: u8, name: &'static str) -> u64 {
        let at = self.raw(&[opcode]);
        self.calls.push((self.code.len(), name));
        self.raw(&[0; 4]);
        at
    }

    /// A service of the runtime's.
    ///
    /// ```
    /// # use testkit::model::{Cpu, Machine, Program, Runtime, Service};
    /// /// Gives whoever asks ten times the number that it asks with.
    /// struct Tenfold;
    /// impl Runtime for Tenfold {
    ///     fn choose(&mut self, _: &Machine, cpu: &mut Cpu, number: u32) {
    ///         cpu.regs.gpr[0] = u64::from(number) * 10;
    ///     }
    /// #     fn lands(&mut self, _: &Cpu, _: u64, _: u64) -> bool { false }
    /// #     fn walked(&mut self, _: &Cpu, _: &[u64]) {}
    /// }
    ///
    /// let mut p = Program::new();
    /// let asks = p.function("asks", 0);
    /// p.service(Service::Choose(3));
    /// p.ret();
    /// let mut machine = Machine::new(p, 0);
    /// let top = machine.add_stack(0x7000_0000);
    /// let mut cpu = machine.start(1, asks, top);
    /// machine.run(&mut cpu, &mut Tenfold, 100);
    /// assert_eq!(cpu.regs.gpr[0], 30);
    /// ```
    pub fn service(&mut self, service: Service) -> u64 {
        let at = self.raw(&[0xF4]);
        self.services.push((at, service));
        at
    }

    /// The function called `name`.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn find(&self, name: &str) -> &FunctionInfo {
        self.functions.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("the program has no function {name}"))
    }

    /// The language's runtime: what a program needs that throws, jumps and gets signals.
    ///
    /// * `raise`, `resume`: look for the frame to go on in, `call set_ip`, go there. `rdi`: the context.
    /// * `set_ip`: does nothing, as the real one: what is of interest are its moment and its argument.
    /// * `backtrace`: walks the stack; its return is 2 bytes behind its start.
    /// * `longjmp`: goes to what the buffer at `rdi` says.
    /// * `restorer`: where a signal handler returns to.
    ///
    /// ```
    /// # use testkit::model::{End, Machine, Program};
    /// let mut p = Program::new();
    /// p.function("throws", 0);
    /// p.call("raise");
    /// let main = p.function("main", 1);
    /// p.push_rbp();
    /// p.call("throws");
    /// p.ret(); // it never comes here
    /// p.landing_pad();
    /// p.mov_eax(3);
    /// p.pop_rbp();
    /// p.ret();
    ///
    /// let mut machine = Machine::new(p.with_runtime(), 0);
    /// let top = machine.add_stack(0x7000_0000);
    /// let mut cpu = machine.start(1, main, top);
    /// assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
    /// assert_eq!(cpu.regs.gpr[0], 3, "caught");
    /// ```
    #[must_use]
    pub fn with_runtime(mut self) -> Self {
        for name in ["raise", "resume"] {
            self.function(name, 0);
            self.nop();
            self.service(Service::Search);
            self.call("set_ip");
            self.service(Service::Install);
        }
        self.function("set_ip", 0);
        self.nop();
        self.ret();
        self.function("backtrace", 0);
        self.nop();
        self.service(Service::Walk);
        self.ret();
        self.function("longjmp", 0);
        self.nop();
        self.service(Service::Jump);
        self.function("restorer", 0);
        self.service(Service::SignalReturn);
        self
    }

    fn end(&mut self) {
        let here = self.here();
        if let Some(function) = self.functions.last_mut() {
            function.length = here - function.start;
        }
    }

    /// Fills in the calls.
    pub(crate) fn finish(mut self) -> Self {
        self.end();
        for (offset, name) in std::mem::take(&mut self.calls) {
            let target = self.find(name).start;
            let displacement = target.wrapping_sub(TEXT + offset as u64 + 4) as u32;
            if let Some(place) = self.code.get_mut(offset..offset + 4) {
                place.copy_from_slice(&displacement.to_le_bytes());
            }
        }
        self
    }
}
