//! What a handler is given.

/// A hit, as its handlers see it. `R` is the host's register file.
#[repr(C)]
#[derive(Debug)]
pub struct Hit<'a, R> {
    regs: &'a mut R,
    address: u64,
    caller: u64,
    trap: u64,
    user: u64,
}

impl<'a, R> Hit<'a, R> {
    /// For hosts, which call handlers: the registers, the probe's address, and what [`user`](Self::user) gives.
    #[must_use]
    pub const fn new(regs: &'a mut R, address: u64, user: u64) -> Self {
        Self { regs, address, caller: 0, trap: 0, user }
    }

    /// For hosts: the hit is a return to `caller`.
    #[must_use]
    pub const fn returning_to(mut self, caller: u64) -> Self {
        self.caller = caller;
        self
    }

    /// For hosts: the instruction has raised `trap`.
    #[must_use]
    pub const fn with_trap(mut self, trap: u64) -> Self {
        self.trap = trap;
        self
    }

    /// The interrupted registers.
    ///
    /// In a pre-handler they are those before the instruction, in a post-handler those after it, in a fault handler
    /// those with which it has faulted. At a function's entry they hold its arguments, at its return the return value.
    ///
    /// ```
    /// # let mut regs = 7_u64;
    /// let hit = kprobes::Hit::new(&mut regs, 0x1000, 0);
    /// assert_eq!(*hit.regs(), 7);
    /// ```
    #[must_use]
    pub const fn regs(&self) -> &R {
        self.regs
    }

    /// The same, to be changed. What execution goes on with is what they are when the last handler returns.
    ///
    /// The program counter counts only in a pre-handler that says [`Next::Redirected`](hit::Next::Redirected), in a
    /// post-handler, and in a fault handler that says [`Cure::Yes`](crate::Cure::Yes).
    ///
    /// ```
    /// # let mut regs = 7_u64;
    /// let mut hit = kprobes::Hit::new(&mut regs, 0x1000, 0);
    /// *hit.regs_mut() += 1;
    /// assert_eq!(regs, 8);
    /// ```
    pub const fn regs_mut(&mut self) -> &mut R {
        self.regs
    }

    /// The address of the probe; for returns, of the function.
    ///
    /// ```
    /// # let mut regs = 0_u64;
    /// assert_eq!(kprobes::Hit::new(&mut regs, 0x1000, 0).address(), 0x1000);
    /// ```
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Where the function returns to, seen through other return probes; 0 when this is no return.
    ///
    /// ```
    /// # let mut regs = 0_u64;
    /// assert_eq!(kprobes::Hit::new(&mut regs, 0x1000, 0).returning_to(0x2000).caller(), 0x2000);
    /// ```
    #[must_use]
    pub const fn caller(&self) -> u64 {
        self.caller
    }

    /// In a fault handler: the exception that the instruction has raised, as the processor numbers them (14 is a page
    /// fault; SDM volume 3, section 6.3.1).
    ///
    /// ```
    /// # let mut regs = 0_u64;
    /// assert_eq!(kprobes::Hit::new(&mut regs, 0x1000, 0).with_trap(14).trap(), 14);
    /// ```
    #[must_use]
    pub const fn trap(&self) -> u64 {
        self.trap
    }

    /// The word that the probe was registered with.
    ///
    /// ```
    /// # let mut regs = 0_u64;
    /// assert_eq!(kprobes::Hit::new(&mut regs, 0x1000, 42).user(), 42);
    /// ```
    #[must_use]
    pub const fn user(&self) -> u64 {
        self.user
    }
}
