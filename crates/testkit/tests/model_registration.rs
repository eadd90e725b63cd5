//! Registration on the model machine: what is refused, what is planted, what is put back.
#![cfg(target_arch = "x86_64")]

mod model;

use hit::ORIGINAL_BYTES;
use kprobes::{Error, Placement, ReturnScheme};
use model::{
    ADD, LEA, MOV, NOP, RET, call, entry, hits, internal, machine, machine_with, program, register, registry, returns,
    try_register, value,
};
use testkit::model::{Action, Call, Control, End, SLOTS, Service};

#[test]
fn the_model_runs_a_program_unprobed() {
    let (machine, top) = machine();
    assert_eq!(value(&machine, "main", top), 8);
}

#[test]
fn a_breakpoint_without_probe_kills_the_program() {
    let (machine, top) = machine();
    let at = machine.address("leaf");
    assert!(machine.memory.write(at, &[0xCC]));
    assert_eq!(call(&machine, "main", top).end, Some(End::Killed(at)));
}

#[test]
fn every_instruction_of_a_function_can_be_probed_at_once() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let requests: Vec<_> = (1u32..).zip([NOP, ADD, LEA, MOV, RET]).map(|(id, at)| entry(leaf + at, id)).collect();
    let handles = r.register(&mut c, &requests).unwrap();
    let placements: Vec<_> = handles.iter().map(|h| h.placement.clone()).collect();
    use Placement::{Boosted, Emulated};
    assert_eq!(placements, [Emulated, Boosted, Boosted, Boosted, Boosted]);
    let cpu = call(&machine, "main", top);
    assert_eq!((cpu.end, cpu.regs.gpr[0], cpu.regs.gpr[7]), (Some(End::Exited), 8, 1));
    assert_eq!([1, 2, 3, 4, 5].map(|id| hits(&machine, id)), [1; 5]);
    assert_eq!(machine.log().iter().map(testkit::model::Event::id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_relocated_operand_sees_its_original_address() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    register(&mut r, &mut c, entry(leaf + LEA, 1));
    let mut cpu = machine.start(1, leaf, top);
    while cpu.regs.rip != leaf + MOV {
        machine.step(&mut cpu, &mut ());
    }
    assert_eq!(cpu.regs.gpr[0], leaf + MOV + 0x10);
}

#[test]
fn unregistering_restores_the_text_byte_for_byte() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let handles = r.register(&mut c, &[entry(leaf, 1), entry(leaf + MOV, 2)]).unwrap();
    assert_ne!(machine.text(), machine.pristine());
    assert_eq!(r.armed().collect::<Vec<_>>(), [leaf, leaf + MOV]);
    r.unregister(&mut c, &handles).unwrap();
    assert_eq!(machine.text(), machine.pristine());
    assert_eq!(r.armed().count(), 0);
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!(hits(&machine, 1) + hits(&machine, 2), 0);
}

#[test]
fn an_address_inside_an_instruction_is_refused_with_its_neighbours() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    for (at, before, after) in [(2, ADD, LEA), (4, ADD, LEA), (5 + 6, LEA, MOV), (MOV + 1, MOV, RET)] {
        let refused = try_register(&mut r, &mut c, entry(leaf + at, 1)).unwrap_err();
        let expected = Error::NotBoundary { address: leaf + at, before: leaf + before, after: leaf + after };
        assert_eq!(refused, expected);
    }
    assert_eq!(machine.text(), machine.pristine());
}

#[test]
fn an_address_inside_the_last_instruction_is_refused_with_the_functions_end_as_neighbour() {
    let mut p = program();
    let start = p.function("ends_wide", 0);
    p.jmp(start);
    let (machine, _) = machine_with(p, 1);
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let refused = try_register(&mut r, &mut c, entry(start + 3, 1)).unwrap_err();
    assert_eq!(refused, Error::NotBoundary { address: start + 3, before: start, after: start + 5 });
}

#[test]
fn boundaries_are_known_in_the_presence_of_probes() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    register(&mut r, &mut c, entry(leaf + ADD, 1));
    assert!(matches!(try_register(&mut r, &mut c, entry(leaf + ADD + 1, 2)), Err(Error::NotBoundary { .. })));
    register(&mut r, &mut c, entry(leaf + LEA, 2));
}

#[test]
fn an_instruction_that_cannot_be_displaced_is_refused_with_the_rule() {
    let mut p = program();
    p.function("far", 0);
    let at = p.raw(&[0xFF, 0x1F]); // call far [rdi]
    p.ret();
    let (machine, _) = machine_with(p, 1);
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let Err(Error::Refused { address, why }) = try_register(&mut r, &mut c, entry(at, 1)) else {
        panic!("a far call cannot be displaced")
    };
    assert_eq!(address, at);
    assert!(!why.is_empty());
    assert_eq!(machine.text(), machine.pristine());
}

#[test]
fn addresses_that_are_no_code_of_the_programs_are_refused() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let gap = machine.address("main") - 1;
    assert_eq!(try_register(&mut r, &mut c, entry(0x10, 1)), Err(Error::NotText { address: 0x10 }));
    assert_eq!(try_register(&mut r, &mut c, entry(SLOTS, 1)), Err(Error::Ours { address: SLOTS }));
    assert_eq!(try_register(&mut r, &mut c, entry(gap, 1)), Err(Error::UnknownFunction { address: gap }));
}

#[test]
fn a_breakpoint_of_somebody_elses_is_refused_until_it_is_gone() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    assert!(machine.memory.write(leaf, &[0xCC]));
    assert_eq!(try_register(&mut r, &mut c, entry(leaf, 1)), Err(Error::ForeignBreakpoint { address: leaf }));
    assert!(machine.memory.write(leaf, &[0x90]));
    register(&mut r, &mut c, entry(leaf, 1));
    assert_eq!(value(&machine, "main", top), 8);
}

#[test]
fn a_foreign_breakpoint_on_a_site_that_was_used_before_is_refused_too() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let handle = register(&mut r, &mut c, entry(leaf, 1));
    r.unregister(&mut c, &[handle]).unwrap();
    assert!(machine.memory.write(leaf, &[0xCC]));
    assert_eq!(try_register(&mut r, &mut c, entry(leaf, 1)), Err(Error::ForeignBreakpoint { address: leaf }));
}

#[cfg(feature = "kretprobes")]
#[test]
fn a_return_probe_is_refused_inside_a_function() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let refused = try_register(&mut r, &mut c, returns(leaf + ADD, 1, 4));
    assert_eq!(refused, Err(Error::NotEntry { address: leaf + ADD, function: leaf }));
}

#[test]
fn a_batch_is_all_or_nothing() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let batch = [entry(leaf, 1), entry(leaf + 2, 2), entry(leaf + MOV, 3)];
    let (index, error) = r.register(&mut c, &batch).unwrap_err();
    assert_eq!(index, 1);
    assert!(matches!(error, Error::NotBoundary { .. }));
    assert_eq!(machine.text(), machine.pristine());
    assert!(!c.calls.contains(&Call::Patch), "text was not even touched");
    let handles = r.register(&mut c, &[batch[0].clone(), batch[2].clone()]).unwrap();
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!([1, 2, 3].map(|id| hits(&machine, id)), [1, 0, 1]);
    r.unregister(&mut c, &handles).unwrap();
    assert_eq!(machine.text(), machine.pristine());
}

#[test]
fn probes_at_one_address_run_in_the_order_of_registration() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let mut handles = r.register(&mut c, &[entry(leaf, 3), entry(leaf, 1)]).unwrap();
    handles.push(register(&mut r, &mut c, entry(leaf, 2)));
    value(&machine, "main", top);
    let order = || machine.log().iter().map(testkit::model::Event::id).collect::<Vec<_>>();
    assert_eq!(order(), [3, 1, 2]);
    r.unregister(&mut c, &handles[1..2]).unwrap();
    value(&machine, "main", top);
    assert_eq!(order(), [3, 1, 2, 3, 2], "the others stay, in order");
    r.unregister(&mut c, &handles[..1]).unwrap();
    value(&machine, "main", top);
    assert_eq!(order(), [3, 1, 2, 3, 2, 2]);
    assert_ne!(machine.text(), machine.pristine());
    r.unregister(&mut c, &handles[2..]).unwrap();
    assert_eq!(machine.text(), machine.pristine());
}

#[test]
fn each_removal_order_of_three_probes_leaves_the_rest_in_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (machine, top) = machine();
        let (mut r, mut c) = (registry(), Control::new(&machine));
        let leaf = machine.address("leaf");
        let handles = r.register(&mut c, &[1, 2, 3].map(|id| entry(leaf, id))).unwrap();
        let mut left = vec![1, 2, 3];
        for which in order {
            r.unregister(&mut c, &handles[which..=which]).unwrap();
            left.retain(|&id| id != which as u32 + 1);
            let before = machine.log().len();
            value(&machine, "main", top);
            let ids: Vec<_> = machine.log()[before..].iter().map(testkit::model::Event::id).collect();
            assert_eq!(ids, left, "after removing {which} in {order:?}");
        }
        assert_eq!(machine.text(), machine.pristine());
    }
}

#[test]
fn a_probe_at_a_used_address_gets_the_same_slot_again() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    for id in 1..5 {
        let handle = register(&mut r, &mut c, entry(leaf + ADD, id));
        value(&machine, "main", top);
        r.unregister(&mut c, &[handle]).unwrap();
        assert_eq!((c.slots(), hits(&machine, id)), (1, 1));
    }
    assert_eq!(r.used(), (1, 1), "the site and the probe are used again");
}

#[test]
fn code_that_has_changed_under_a_dead_site_gets_a_new_slot() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let handle = register(&mut r, &mut c, entry(leaf + MOV, 1));
    r.unregister(&mut c, &[handle]).unwrap();
    machine.rewrite(leaf + MOV + 1, &[42]); // mov eax, 42
    register(&mut r, &mut c, entry(leaf + MOV, 2));
    assert_eq!(c.slots(), 2);
    assert_eq!(value(&machine, "main", top), 43, "the new instruction runs, not the old copy");
    assert_eq!((hits(&machine, 1), hits(&machine, 2)), (0, 1));
}

#[test]
fn overlapping_reads_see_through_other_breakpoints() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    // From the last instruction to the first: each is read with the breakpoints behind it in place.
    for (id, at) in [(5, RET), (4, MOV), (3, LEA), (2, ADD), (1, NOP)] {
        register(&mut r, &mut c, entry(leaf + at, id));
    }
    let pristine = machine.pristine();
    for site in machine.tables.sites.iter().take(5) {
        use sync::primitive::Ordering::Relaxed;
        let at = (site.address.load(Relaxed) - testkit::model::TEXT) as usize;
        let kept: Vec<u8> = site.original.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
        assert_eq!(kept, pristine[at..at + ORIGINAL_BYTES]);
    }
    assert_eq!(value(&machine, "main", top), 8);
}

#[cfg(feature = "kretprobes")]
#[test]
fn checking_touches_nothing() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    assert_eq!(r.check(&mut c, &entry(leaf, 1)), Ok(Placement::Emulated));
    assert_eq!(r.check(&mut c, &entry(leaf + ADD, 1)), Ok(Placement::Boosted));
    assert_eq!(r.check(&mut c, &returns(leaf, 1, 1)), Ok(Placement::ReturnStub));
    assert!(c.calls.iter().all(|call| matches!(call, Call::Read | Call::Function | Call::ReturnScheme)));
}

#[cfg(feature = "kretprobes")]
#[test]
fn return_sites_stand_in_for_stubs() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    c.schemes.insert(leaf, ReturnScheme::Sites(vec![leaf + RET], "because".into()));
    let handle = register(&mut r, &mut c, returns(leaf, 1, 4));
    assert_eq!(handle.placement, Placement::ReturnSites(1, "because".into()));
    value(&machine, "main_twice", top);
    assert_eq!(machine.tables.counts(1), [2, 2, 0, 0, 0]);
    assert_eq!(machine.log()[0], testkit::model::Event::ReturnSite { id: 1, value: 7 });
    r.unregister(&mut c, &[handle]).unwrap();
    assert_eq!(machine.text(), machine.pristine());
}

#[test]
fn a_text_changed_by_the_program_is_not_overwritten_at_removal() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let handle = register(&mut r, &mut c, entry(leaf + MOV, 1));
    machine.rewrite(leaf + MOV, &[0xB8, 9]);
    r.unregister(&mut c, &[handle]).unwrap();
    assert_eq!(machine.text(), machine.pristine());
    assert_eq!(value(&machine, "main", top), 10);
}

#[test]
fn what_was_unmapped_is_forgotten_and_can_be_probed_again_when_something_else_is_mapped_there() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    register(&mut r, &mut c, entry(leaf + MOV, 1));
    // Another object takes the place: other code, no breakpoint of ours.
    machine.rewrite(leaf + MOV, &[0xB8, 9]);
    r.forget(&mut c, leaf..leaf + 0x20);
    assert_eq!(r.armed().count(), 0);
    register(&mut r, &mut c, entry(leaf + MOV, 2));
    assert_eq!(value(&machine, "main", top), 10);
    assert_eq!((hits(&machine, 1), hits(&machine, 2)), (0, 1));
}

#[test]
fn a_handle_that_was_forgotten_can_be_unregistered_without_harm_to_its_successor() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let old = register(&mut r, &mut c, entry(leaf + MOV, 1));
    machine.rewrite(leaf + MOV, &[0xB8, 9]);
    r.forget(&mut c, leaf..leaf + 0x20);
    register(&mut r, &mut c, entry(leaf + MOV, 2));
    r.unregister(&mut c, &[old]).unwrap();
    value(&machine, "main", top);
    assert_eq!((hits(&machine, 1), hits(&machine, 2)), (0, 1));
}

#[cfg(feature = "kretprobes")]
#[test]
fn thirty_two_return_probes_fit_at_one_address_and_no_more() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let requests: Vec<_> = (0..32).map(|id| returns(leaf, id, 4)).collect();
    r.register(&mut c, &requests).unwrap();
    assert_eq!(try_register(&mut r, &mut c, returns(leaf, 40, 4)), Err(Error::TooManyReturns { address: leaf }));
    value(&machine, "main", top);
    assert!((0..32).all(|id| machine.tables.counts(id) == [1, 1, 0, 0, 0]));
}

#[cfg(feature = "kretprobes")]
#[test]
fn return_probes_at_one_address_can_come_and_go_for_ever() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    for round in 1..=100 {
        let handle = register(&mut r, &mut c, returns(leaf, 1, 4));
        value(&machine, "main", top);
        assert_eq!(machine.tables.counts(1), [round, round, 0, 0, 0]);
        r.unregister(&mut c, &[handle]).unwrap();
    }
}

#[cfg(feature = "kretprobes")]
#[test]
fn a_batch_that_fails_costs_no_return_probe_bit() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    for _ in 0..40 {
        let failed = r.register(&mut c, &[returns(leaf, 1, 4), entry(leaf + 2, 2)]);
        assert!(matches!(failed, Err((1, Error::NotBoundary { .. }))));
    }
    register(&mut r, &mut c, returns(leaf, 1, 4));
}

#[test]
fn an_internal_probe_may_redirect() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    register(&mut r, &mut c, internal(leaf + MOV, Action::Redirect(leaf + RET)));
    assert_eq!(value(&machine, "main", top), leaf + MOV + 0x10 + 1, "mov was left out: rax is what lea gave");
}

#[test]
fn services_are_not_probed() {
    let mut p = program();
    p.function("stops", 0);
    let at = p.service(Service::Walk);
    p.ret();
    let (machine, _) = machine_with(p, 1);
    let (mut r, mut c) = (registry(), Control::new(&machine));
    // Privileged in a process: the model must not pretend that a copy of it works.
    match try_register(&mut r, &mut c, entry(at, 1)) {
        Err(Error::Refused { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn unregistering_twice_does_not_harm_other_probes() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let handle = register(&mut r, &mut c, entry(leaf, 1));
    r.unregister(&mut c, std::slice::from_ref(&handle)).unwrap();
    r.unregister(&mut c, std::slice::from_ref(&handle)).unwrap();
    r.register(&mut c, &[entry(leaf + ADD, 2), entry(leaf + MOV, 3)]).unwrap();
    value(&machine, "main", top);
    assert_eq!((hits(&machine, 2), hits(&machine, 3)), (1, 1));
    r.unregister(&mut c, &[handle]).unwrap();
    value(&machine, "main", top);
    assert_eq!((hits(&machine, 2), hits(&machine, 3)), (2, 2), "an old handle does not take others off");
}

#[test]
fn a_handle_does_not_take_off_what_uses_its_place_at_its_address_now() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let old = register(&mut r, &mut c, entry(leaf, 1));
    r.unregister(&mut c, std::slice::from_ref(&old)).unwrap();
    let new = register(&mut r, &mut c, entry(leaf, 2));
    assert_eq!(r.used(), (1, 1), "site and place are the same");
    r.unregister(&mut c, &[old]).unwrap();
    value(&machine, "main", top);
    assert_eq!(hits(&machine, 2), 1);
    r.unregister(&mut c, &[new]).unwrap();
    assert_eq!(machine.text(), machine.pristine());
}

#[cfg(feature = "kretprobes")]
#[test]
fn a_request_that_is_refused_costs_the_others_nothing() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let batch = [entry(leaf, 1), returns(leaf, 2, 4), entry(leaf + 2, 3)];
    assert!(matches!(r.register(&mut c, &batch), Err((2, Error::NotBoundary { .. }))));
    assert!(c.calls.iter().all(|call| matches!(call, Call::Read | Call::Function | Call::ReturnScheme)));
    assert_eq!((r.used(), c.slots()), ((0, 0), 0));
}

#[test]
fn equal_fetch_programs_share_a_place() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let other = kprobes::Request { program: vec![2, 2], ..entry(leaf, 3) };
    r.register(&mut c, &[entry(leaf, 1), entry(leaf + ADD, 2), other]).unwrap();
    register(&mut r, &mut c, entry(leaf + MOV, 4));
    assert_eq!(c.calls.iter().filter(|&&call| call == Call::StoreProgram).count(), 2);
    let code = |p: &hit::Probe| [&p.code, &p.code_length].map(|w| w.load(sync::primitive::Ordering::Relaxed));
    let codes: Vec<_> = machine.tables.probes.iter().take(4).map(code).collect();
    assert_eq!(codes, [[0, 1], [0, 1], [1, 2], [0, 1]]);
}

#[cfg(feature = "kretprobes")]
#[test]
fn too_many_return_probes_of_one_batch_are_refused_before_anything_is_prepared() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let batch: Vec<_> = (0..33).map(|id| returns(leaf, id, 4)).collect();
    assert_eq!(r.register(&mut c, &batch), Err((32, Error::TooManyReturns { address: leaf })));
    assert_eq!((r.used(), c.slots()), ((0, 0), 0));
    r.register(&mut c, &batch[..32]).unwrap();
}

#[test]
fn code_that_differs_from_its_file_is_refused_also_where_the_site_was_known() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let handle = register(&mut r, &mut c, entry(leaf + MOV, 1));
    r.unregister(&mut c, &[handle]).unwrap();
    assert!(machine.memory.write(leaf + MOV + 1, &[42]));
    assert_eq!(try_register(&mut r, &mut c, entry(leaf + MOV, 2)), Err(Error::Changed { address: leaf + MOV }));
}

#[test]
fn places_of_what_was_unmapped_are_used_again_after_the_next_removal() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    for _ in 0..3 {
        r.register(&mut c, &[entry(leaf + MOV, 1), entry(leaf + MOV, 2)]).unwrap();
        let other = register(&mut r, &mut c, entry(machine.address("main"), 3));
        machine.rewrite(leaf + MOV, &[0xB8, 9]);
        r.forget(&mut c, leaf..leaf + 0x20);
        r.unregister(&mut c, &[other]).unwrap();
    }
    assert_eq!(r.used().1, 3);
    assert_eq!(value(&machine, "main", top), 10);
}

#[test]
fn what_was_left_out_of_the_build_is_refused_by_its_name() {
    let (machine, _) = machine();
    let address = machine.address("leaf");
    let (mut registry, mut control) = (registry(), Control::new(&machine));
    let mirror = kprobes::HandlerData { before: 1, mirror: true, ..kprobes::HandlerData::NONE };
    let jprobe =
        kprobes::Request { handlers: mirror, ..kprobes::Request::counting(address, kprobes::ProbeKind::Handler, 1) };
    let asked = [
        (returns(address, 0, 1), "kretprobes", cfg!(feature = "kretprobes")),
        (jprobe, "jprobes", cfg!(feature = "jprobes")),
    ];
    for (request, feature, is_there) in asked {
        match registry.check(&mut control, &request) {
            Ok(_) => assert!(is_there, "{feature}"),
            Err(error) => {
                assert!(!is_there && error.to_string().contains(&format!("(feature `{feature}`)")), "{error}");
            }
        }
    }
}
