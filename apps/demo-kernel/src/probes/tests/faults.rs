//! Faults where probes are: in the displaced instruction, under it, and in probes' handlers.
//!
//! The oracle is the same code without a probe: the faults that are reported, the registers and the memory that it
//! leaves must be the same in every way to step. How a fault is reported is seen by a probe of the kernel's own fault
//! handling (which so is probed while it works), and by the hook that is asked at the end.

mod contained;
mod displaced;
mod path;
mod programs;

use super::Test;
use host_bare::Stepping;

pub(super) const TESTS: &[Test] = &[
    Test { name: "each way to step is another placement", run: displaced::placements_differ },
    Test { name: "a displaced instruction touches demand-zero memory", run: displaced::demand_zero },
    Test { name: "a displaced instruction faults for good", run: displaced::unhandled },
    Test { name: "a displaced branch goes to where nothing is", run: displaced::branches },
    Test { name: "a displaced instruction has an exception table entry", run: displaced::exception_table },
    Test { name: "a displaced instruction faults with interrupts off", run: displaced::interrupts_off },
    Test { name: "two probes at an instruction that faults", run: displaced::two_probes },
    Test { name: "the oracle sees a fault that is reported elsewhere", run: displaced::oracle_sees },
    Test { name: "demand-zero memory under probes of its own handler", run: path::every_instruction },
    Test { name: "the probes of the fault path count each fault once", run: path::counts_faults },
    Test { name: "a handler that faults is contained", run: contained::every_kind },
    Test { name: "a handler that faults at an instruction that faults", run: contained::at_faulting_instruction },
    Test { name: "a probed function faults in a handler", run: contained::in_nested_probe },
    Test { name: "other probes at the address go on after a fault", run: contained::others_go_on },
    Test { name: "a probe that has faulted is forgotten with its removal", run: contained::forgotten },
    Test { name: "a handler touches demand-zero memory", run: contained::touches_demand_zero },
    Test { name: "a handler's guarded read of nothing", run: contained::guarded_read },
    Test { name: "fetch arguments of memory that is not there", run: contained::fetch_arguments },
];

/// All ways to step.
const STEPPINGS: [Stepping; 5] = Stepping::ALL;
