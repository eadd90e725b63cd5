//! Stepping on the model machine: all four ways have the same result, and a fault in a copy is one of the original.
#![cfg(target_arch = "x86_64")]

mod model;

use hit::{Marks, Outcome, STEP_END, Site, Stepping as Step};
use isa::x86::{Regs, flags, gpr};
use kprobes::Stepping;
use model::{ADD, MOV, RET, entry, hits, machine, register, registry, value};
use sync::primitive::{AtomicU64, Ordering::Relaxed};
use testkit::model::{Control, Cpu, End, Machine, SLOTS, Trap};

const ALL: [Stepping; 5] = Stepping::ALL;
/// Flags that a program has: the interrupt flag among them.
const PROGRAM_FLAGS: u64 = flags::IF | flags::ZF | 2;

fn planted(machine: &Machine, stepping: Stepping, addresses: &[u64]) -> (kprobes::Registry, Vec<kprobes::Handle>) {
    let (mut r, mut c) = (registry(), Control::new(machine));
    c.stepping = stepping;
    let requests: Vec<_> = (1..).zip(addresses).map(|(id, &address)| entry(address, id)).collect();
    let handles = r.register(&mut c, &requests).expect("all of these can be probed");
    (r, handles)
}

/// All boundaries of the functions that `main` runs through.
fn boundaries(machine: &Machine) -> Vec<u64> {
    let text = machine.pristine();
    let of = |f: &testkit::model::FunctionInfo| {
        let at = (f.start - testkit::model::TEXT) as usize;
        isa::x86::boundaries(&text[at..at + f.length as usize], f.start).starts().collect::<Vec<_>>()
    };
    machine.functions.iter().filter(|f| ["leaf", "main"].contains(&f.name)).flat_map(of).collect()
}

#[test]
fn every_way_to_step_gives_the_same_result() {
    for stepping in ALL {
        let (machine, top) = machine();
        let unprobed = value(&machine, "main", top);
        let all = boundaries(&machine);
        let _probes = planted(&machine, stepping, &all);
        assert_eq!(value(&machine, "main", top), unprobed, "{stepping:?}");
        for (id, address) in (1..).zip(&all) {
            assert_eq!(hits(&machine, id), 1, "{stepping:?} at {address:#x}");
        }
    }
}

#[test]
fn the_flags_are_as_before_after_every_way_to_step() {
    for stepping in ALL {
        let (machine, top) = machine();
        let flags = || {
            let mut cpu = machine.start(1, machine.address("main"), top);
            cpu.regs.flags = PROGRAM_FLAGS;
            assert_eq!(machine.run(&mut cpu, &mut (), 10_000), Some(End::Exited));
            cpu.regs.flags
        };
        let unprobed = flags();
        let _probes = planted(&machine, stepping, &boundaries(&machine));
        assert_eq!(flags(), unprobed, "{stepping:?}");
        assert!(machine.tables.steppings.iter().all(|s| s.site().is_none()), "{stepping:?}: a step is open");
    }
}

#[test]
fn nothing_can_interrupt_a_step() {
    for stepping in [Stepping::SecondBreakpoint, Stepping::SingleStep] {
        let (machine, top) = machine();
        let _probes = planted(&machine, stepping, &[machine.address("leaf") + MOV]);
        let mut cpu = machine.start(1, machine.address("main"), top);
        cpu.regs.flags = PROGRAM_FLAGS;
        let mut steps = 0;
        while cpu.end.is_none() {
            if (SLOTS..SLOTS + 0x1000).contains(&cpu.regs.rip) {
                assert_eq!(cpu.regs.flags & flags::IF, 0, "{stepping:?}");
                steps += 1;
            }
            machine.step(&mut cpu, &mut ());
        }
        assert!(steps > 0, "the copy was never run");
    }
}

#[test]
fn how_a_site_is_placed_is_what_was_asked_for_where_it_can_be() {
    use kprobes::Placement::{Boosted, Emulated, SecondBreakpoint, SingleStepped};
    let expected = [
        (Stepping::Best, [Emulated, Boosted]),
        (Stepping::Boosted, [Boosted, Boosted]),
        (Stepping::SecondBreakpoint, [Emulated, SecondBreakpoint]),
        (Stepping::SingleStep, [SingleStepped, SingleStepped]),
    ];
    for (stepping, placements) in expected {
        let (machine, _) = machine();
        let leaf = machine.address("leaf");
        let (_, handles) = planted(&machine, stepping, &[leaf, leaf + MOV]);
        assert_eq!(handles.iter().map(|h| h.placement.clone()).collect::<Vec<_>>(), placements);
    }
}

#[test]
fn a_site_without_probes_is_made_anew_for_another_way_to_step() {
    let (machine, top) = machine();
    let at = machine.address("leaf") + MOV;
    let (mut r, mut c) = (registry(), Control::new(&machine));
    for stepping in [Stepping::SingleStep, Stepping::Boosted, Stepping::SecondBreakpoint, Stepping::SingleStep] {
        c.stepping = stepping;
        let handle = register(&mut r, &mut c, entry(at, 1));
        let second = register(&mut r, &mut c, entry(at, 2));
        assert_eq!(handle.placement, second.placement);
        assert_eq!(value(&machine, "main", top), 8);
        r.unregister(&mut c, &[handle, second]).unwrap();
    }
    assert_eq!((hits(&machine, 1), hits(&machine, 2), c.slots()), (4, 4, 4));
    assert_eq!(machine.text(), machine.pristine());
}

#[test]
fn a_step_inside_another_step_is_boosted() {
    // What interrupts a step although nothing may: a processor's fault, or an interrupt that cannot be masked.
    for stepping in [Stepping::SecondBreakpoint, Stepping::SingleStep] {
        let (mut machine, top) = machine();
        let other_stack = machine.add_stack(0x7200_0000);
        let _probes = planted(&machine, stepping, &[machine.address("leaf") + MOV, machine.address("leaf") + ADD]);
        let mut cpu = machine.start(1, machine.address("main"), top);
        cpu.regs.flags = flags::IF | 2;
        let mut interrupted = 0;
        while cpu.end.is_none() {
            if (SLOTS..SLOTS + 0x1000).contains(&cpu.regs.rip) && cpu.trapped.is_none() {
                let mut nested = Cpu { ..machine.start(1, machine.address("main"), other_stack) };
                assert_eq!(machine.run(&mut nested, &mut (), 10_000), Some(End::Exited));
                assert_eq!(nested.regs.flags & flags::TF, 0);
                interrupted += 1;
            }
            machine.step(&mut cpu, &mut ());
        }
        assert_eq!((cpu.end, cpu.regs.gpr[gpr::RAX]), (Some(End::Exited), 8));
        assert_eq!(cpu.regs.flags & (flags::IF | flags::TF), flags::IF);
        assert!(interrupted > 0);
    }
}

#[test]
fn a_fault_in_a_copy_is_one_of_the_original() {
    for stepping in ALL {
        let (machine, top) = machine();
        let at = machine.address("leaf") + MOV;
        // ud2 has no place here, so: an instruction that the machine does not have (`cpuid`), which "faults".
        machine.rewrite(at, &[0x0F, 0xA2]);
        let (_r, handles) = planted(&machine, stepping, &[at]);
        assert_eq!(handles.len(), 1);
        let mut cpu = machine.start(1, machine.address("leaf"), top);
        cpu.regs.flags = flags::IF | 2;
        let sp = cpu.sp();
        assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Faulted(at)), "{stepping:?}");
        assert_eq!((cpu.sp(), cpu.regs.flags), (sp, flags::IF | 2), "{stepping:?}");
        assert!(machine.tables.steppings.iter().all(|s| s.site().is_none()));
    }
}

#[test]
fn what_is_cured_goes_on_where_it_was_and_what_was_moved_stays_moved() {
    let (machine, _) = machine();
    let at = machine.address("leaf") + MOV;
    let _probes = planted(&machine, Stepping::Boosted, &[at]);
    let first = machine.tables.sites[0].slot.load(Relaxed);
    let slot = first + hit::BOOSTED_COPY;
    let trap = Trap::new(&machine, 1, hit::returns::SideStack::default());
    let mut regs = Regs { rip: slot, ..Regs::default() };
    let displaced = hit::displaced(&trap, &mut regs).unwrap();
    assert_eq!(regs.rip, at);
    let mut moved = Regs { rip: at + 2, ..regs };
    hit::resume::<testkit::model::X86>(displaced, &mut moved);
    assert_eq!(moved.rip, at + 2, "the fault's handler has set the program counter");
    hit::resume::<testkit::model::X86>(displaced, &mut regs);
    assert_eq!(regs.rip, slot);
    let mut regs = Regs { rip: first, ..Regs::default() };
    let displaced = hit::displaced(&trap, &mut regs).unwrap();
    hit::resume::<testkit::model::X86>(displaced, &mut regs);
    assert_eq!(regs.rip, slot, "a step that a fault has ended goes on boosted");
    assert_eq!(hit::displaced(&trap, &mut Regs { rip: at, ..Regs::default() }), None, "not in a slot");
}

#[test]
fn a_second_breakpoint_is_known_wherever_its_trap_comes() {
    let (machine, _) = machine();
    let at = machine.address("leaf") + MOV;
    let _probes = planted(&machine, Stepping::SecondBreakpoint, &[at]);
    let site = &machine.tables.sites[0];
    let (complete, _) = Site::lengths(site.how.load(Relaxed));
    let end = site.slot.load(Relaxed) + complete;
    assert_eq!(sync::Table::new(&machine.tables.buckets).find(end), Some(STEP_END));
    // The step was begun by another thread, or given up because of a fault.
    let mut regs = Regs { rip: end + 1, flags: PROGRAM_FLAGS, ..Regs::default() };
    let trap = Trap::new(&machine, 7, hit::returns::SideStack::default());
    assert_eq!(hit::breakpoint(&trap, &mut regs), Outcome::Handled);
    assert_eq!((regs.rip, regs.flags), (at + (RET - MOV), PROGRAM_FLAGS));
}

#[test]
fn a_single_step_that_nobody_has_begun_is_foreign() {
    let (machine, _) = machine();
    let trap = Trap::new(&machine, 1, hit::returns::SideStack::default());
    let mut regs = Regs { rip: machine.address("leaf"), flags: flags::TF, ..Regs::default() };
    let before = regs;
    assert_eq!(hit::single_step(&trap, &mut regs), Outcome::Foreign);
    assert_eq!(regs, before);
    assert_eq!(Step::new().site(), None);
}

#[test]
fn a_mark_says_what_it_was_made_of() {
    let word = |offset, pushed, delta| Marks::mark(offset, pushed, delta).unwrap();
    let words = [word(0, 0, 0), word(6, 8, 0), word(10, 0, -0x7000_0000), 0, 0, 0];
    let marks = Marks(words.map(AtomicU64::new));
    let at = [(0, (0, 0)), (5, (0, 0)), (6, (0, 8)), (9, (0, 8)), (10, (-0x7000_0000, 0)), (63, (-0x7000_0000, 0))];
    for (offset, meaning) in at {
        assert_eq!(marks.meaning(offset), meaning, "at {offset}");
    }
    assert_eq!(Marks::mark(0, 0, 1 << 40), None);
    assert_eq!(Marks::mark(256, 0, 0), None);
}
