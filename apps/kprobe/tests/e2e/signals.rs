//! Programs that block, ignore, own or mask SIGTRAP around a probed function.

use crate::harness::{assert_exact, need, program};

macro_rules! scenarios {
    ($($module:ident: $program:literal;)*) => {
        $(mod $module {
            super::scenarios!(@each $program:
                blocked all_blocked ignored own_handler handler_with_full_mask thread_born_blocked
                in_sigsuspend in_ppoll in_pselect in_epoll_pwait own_breakpoint own_trap_flag default_action);
        })*
    };
    (@each $program:literal: $($scenario:ident)*) => {
        $(#[test] fn $scenario() { super::unchanged($program, stringify!($scenario)); })*
    };
}
use scenarios;

/// The scenario's output, status and counts are those of the bare run.
fn unchanged(name: &str, scenario: &str) {
    let path = need!(program(name));
    assert_exact(&path, &[scenario], &["work"]);
}

scenarios! {
    glibc: "signals";
    glibc_static: "signals.static";
    musl: "signals.musl";
}

#[test]
fn masks_that_cannot_be_written_do_not_block_our_traps() {
    unchanged("signals", "in_constant_masks");
}
