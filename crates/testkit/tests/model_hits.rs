//! The hit path on the model machine: recursion, stale and foreign breakpoints, corrupt tables.
#![cfg(target_arch = "x86_64")]

mod model;

use hit::returns::SideStack;
use hit::{MAX_CHAIN, Outcome, Probe, Site};
use isa::x86::Regs;
use model::{ADD, MOV, NOP, entry, hits, internal, machine, register, registry, returns, value};
use proptest::prelude::{Strategy, any, prop_assert, proptest};
use sync::primitive::Ordering::Relaxed;
use testkit::model::{Action, Control, End, Machine, STUB_STRIDE, STUBS, TEXT, Trap, halves, words};

/// Handles a trap at `address` and gives the outcome and the program counter after it.
fn trap(machine: &Machine, address: u64) -> (Outcome, u64) {
    let mut regs = Regs { rip: address + 1, ..Regs::default() };
    regs.gpr[4] = model::STACK + 0x1000;
    let outcome = hit::breakpoint(&Trap::new(machine, 1, SideStack::default()), &mut regs);
    (outcome, regs.rip)
}

#[test]
fn a_breakpoint_that_is_gone_is_run_again() {
    let (machine, _) = machine();
    assert_eq!(trap(&machine, TEXT), (Outcome::Stale, TEXT));
}

#[test]
fn a_breakpoint_of_nobodys_is_foreign_and_leaves_the_registers() {
    let (machine, _) = machine();
    assert!(machine.memory.write(TEXT, &[0xCC]));
    assert_eq!(trap(&machine, TEXT), (Outcome::Foreign, TEXT + 1));
}

#[test]
fn a_breakpoint_where_nothing_is_mapped_any_more_is_run_again() {
    let (machine, _) = machine();
    assert_eq!(trap(&machine, 0x10), (Outcome::Stale, 0x10));
}

#[test]
fn a_foreign_breakpoint_on_a_dead_site_is_foreign_and_one_that_is_gone_runs_again() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let at = machine.address("leaf") + MOV;
    let handle = register(&mut r, &mut c, entry(at, 1));
    r.unregister(&mut c, &[handle]).unwrap();
    assert_eq!(trap(&machine, at), (Outcome::Stale, at), "a late trap of ours");
    assert!(machine.memory.write(at, &[0xCC]));
    assert_eq!(trap(&machine, at), (Outcome::Foreign, at + 1));
    assert_eq!(hits(&machine, 1), 0);
}

#[test]
fn a_stub_that_no_instance_ever_had_is_foreign() {
    let (machine, _) = machine();
    assert_eq!(trap(&machine, STUBS + 3 * STUB_STRIDE).0, Outcome::Foreign);
    assert_eq!(trap(&machine, STUBS + 1).0, Outcome::Foreign, "between two stubs");
}

#[cfg(feature = "kretprobes")]
#[test]
fn a_handler_that_hits_probes_counts_a_miss_on_each_and_the_instruction_still_runs() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    register(&mut r, &mut c, entry(main, 1));
    r.register(&mut c, &[entry(leaf, 2), entry(leaf, 3), entry(leaf + MOV, 4), returns(leaf, 5, 4)]).unwrap();
    machine.set_handler_calls(Some(leaf));
    assert_eq!(value(&machine, "main", top), 8);
    // `main` is hit once: its handler calls `leaf` once. Then `main` calls `leaf`: the handlers of 2, 3, 4 and 5 (when
    // it returns) call `leaf` once each.
    let counts = |id| machine.tables.counts(id);
    assert_eq!(counts(1), [1, 0, 0, 0, 0]);
    assert_eq!(counts(2), [1, 0, 0, 5, 0]);
    assert_eq!(counts(3), [1, 0, 0, 5, 0]);
    assert_eq!(counts(4), [1, 0, 0, 5, 0]);
    assert_eq!(counts(5), [1, 1, 0, 5, 0]);
    assert!(machine.tables.active.iter().all(|w| w.load(Relaxed) == 0), "nobody is left in a handler");
}

#[test]
fn a_third_nesting_is_missed_as_the_second_is() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let (leaf, main, twice) = (machine.address("leaf"), machine.address("main"), machine.address("main_twice"));
    // An internal probe runs at any depth: the handler of `main_twice` calls `main`, the handler of that calls `leaf`.
    let requests = [
        entry(twice, 1),
        internal(twice, Action::Call(main)),
        entry(main, 2),
        internal(main, Action::Call(leaf)),
        entry(leaf, 3),
    ];
    r.register(&mut c, &requests).unwrap();
    assert_eq!(value(&machine, "main_twice", top), 8);
    let counts = |id| machine.tables.counts(id);
    assert_eq!(counts(1), [1, 0, 0, 0, 0]);
    // Twice from the program, once from the handler.
    assert_eq!(counts(2), [2, 0, 0, 1, 0]);
    // From the program twice. Missed: called by the nested `main` and by its handler, and by the two other handlers.
    assert_eq!(counts(3), [2, 0, 0, 4, 0]);
}

#[cfg(feature = "kretprobes")]
#[test]
fn records_without_room_are_lost_and_counted() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    r.register(&mut c, &[entry(leaf, 1), returns(leaf, 2, 4)]).unwrap();
    machine.set_room(1);
    value(&machine, "main_twice", top);
    assert_eq!(machine.tables.counts(1), [2, 0, 0, 0, 1]);
    assert_eq!(machine.tables.counts(2), [2, 2, 0, 0, 2]);
}

#[test]
fn a_probe_that_only_counts_records_nothing() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let request = kprobes::Request { record: false, ..entry(machine.address("leaf"), 1) };
    register(&mut r, &mut c, request);
    value(&machine, "main", top);
    assert_eq!((hits(&machine, 1), machine.log().len()), (1, 0));
}

#[test]
fn when_two_probes_redirect_the_instruction_is_not_run() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let requests = [
        internal(leaf + ADD, Action::Redirect(leaf + MOV)),
        entry(leaf + ADD, 1),
        internal(leaf + ADD, Action::Redirect(leaf + MOV)),
    ];
    r.register(&mut c, &requests).unwrap();
    let cpu = model::call(&machine, "main", top);
    assert_eq!((cpu.end, cpu.regs.gpr[7], cpu.regs.gpr[0]), (Some(End::Exited), 0, 8));
    assert_eq!(hits(&machine, 1), 1);
}

#[test]
fn a_chain_that_is_a_ring_ends() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    r.register(&mut c, &[entry(leaf, 1), entry(leaf, 2)]).unwrap();
    machine.tables.probes[1].next.store(1, Relaxed);
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!(hits(&machine, 1) + hits(&machine, 2), MAX_CHAIN as u64);
}

#[test]
fn more_threads_in_handlers_than_the_set_holds_are_missed_not_lost() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    register(&mut r, &mut c, entry(machine.address("leaf") + NOP, 1));
    for (id, word) in (100..).zip(&machine.tables.active) {
        word.store(id, Relaxed);
    }
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!(machine.tables.counts(1), [0, 0, 0, 1, 0]);
}

#[test]
fn a_site_of_another_address_is_not_taken() {
    // What a torn key in the table can lead to.
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    register(&mut r, &mut c, entry(leaf, 1));
    machine.tables.sites[0].address.store(leaf + 1, Relaxed);
    assert_eq!(trap(&machine, leaf).0, Outcome::Foreign);
}

/// Words that are sometimes small, as indices and states are, and sometimes anything.
fn word() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u8..4).prop_map(|(w, kind)| match kind {
        0 => w % 8,
        1 => (w % 8) | (w >> 32 & 7) << 32,
        2 => STUBS + w % 64 * (STUB_STRIDE / 2),
        _ => w,
    })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn any_words_in_the_table_neither_panic_nor_loop(
        noise in proptest::collection::vec(word(), 64),
        stir in any::<u64>(),
    ) {
        let (machine, top) = machine();
        let tables = &machine.tables;
        let noise = |i: usize| noise[(i.wrapping_mul(7) ^ stir as usize) % 64];
        words(&tables.sites).iter().take(64).enumerate().for_each(|(i, w)| w.store(noise(i), Relaxed));
        for (p, probe) in tables.probes.iter().take(16).enumerate() {
            halves(probe).iter().enumerate().for_each(|(i, w)| w.store(noise(p * 16 + i) as u32, Relaxed));
            // What a handler calls must return; a corrupt `internal` probe could not know.
            probe.data.store(noise(p) % 6, Relaxed);
        }
        words(&tables.pool).iter().enumerate().for_each(|(i, w)| w.store(noise(i + 3), Relaxed));
        words(&tables.instances).iter().enumerate().for_each(|(i, w)| w.store(noise(i + 5), Relaxed));
        // The sites bear the addresses that are hit: else nothing would be looked at.
        for (i, site) in tables.sites.iter().take(8).enumerate() {
            site.address.store(TEXT + i as u64, Relaxed);
            let table = sync::Table::new(&tables.buckets);
            prop_assert!(table.insert(TEXT + i as u64, i as u64));
        }
        for address in (TEXT..TEXT + 8).chain((0..20).map(|i| STUBS + i * STUB_STRIDE / 2)) {
            trap(&machine, address);
        }
        let host = Trap::new(&machine, 1, SideStack { low: stir % 7 * 4096, high: stir });
        let returns = tables.returns();
        returns.restore(&host, top - 0x800, SideStack::default());
        returns.land(&host, top - 0x800, top - 0x400, SideStack { low: 0, high: stir });
        returns.walked(&host, stir, SideStack::default());
        returns.jump(&host, top - 0x800, stir, SideStack::default());
        returns.exit(&host);
        returns.adopt();
        let _ = returns.high_water();
    }
}

#[test]
fn the_states_that_control_writes_are_those_that_the_hit_path_reads() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    register(&mut r, &mut c, entry(machine.address("leaf"), 1));
    assert_eq!(machine.tables.sites[0].state.load(Relaxed), Site::ARMED);
    assert_eq!(machine.tables.probes[0].state.load(Relaxed), Probe::REGISTERED);
}
