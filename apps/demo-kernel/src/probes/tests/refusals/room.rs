//! What there is only so much of.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::ksyms;

use super::{refusals_target, refused_with, still_works, target};
use crate::probes::tests::{check, counts, remove, same};
use crate::probes::with_control;

/// 32 work, the 33rd is refused, alone and in a batch; when one goes, there is room for one.
pub(super) fn return_probes() -> Result<(), String> {
    let names: Vec<String> = (0..33).map(|n| format!("refusals_r{n}")).collect();
    let lines: Vec<String> = names.iter().map(|name| format!("r:{name} refusals_target")).collect();
    let all: Vec<&str> = lines.iter().map(String::as_str).collect();
    let said = with_control(|c| c.define(&all))?;
    check(matches!(said, Err((32, _))), || format!("33 in a batch: {said:?}"))?;
    same("planted", with_control(|c| c.list().count())?, 0)?;
    with_control(|c| c.define(&all[..32]))?.map_err(|(_, e)| e.to_string())?;
    refused_with(all[32], &["more than 32 return probes", "^"])?;
    refusals_target(1);
    for name in &names[..32] {
        let c = counts(name)?;
        same(name, (c.hits, c.returned), (1, 1))?;
    }
    remove(&["refusals_r7"])?;
    with_control(|c| c.line(all[32]))?.map_err(|e| e.to_string())?;
    refused_with(all[7], &["more than 32 return probes"])?;
    refusals_target(1);
    same("the new one's returns", counts("refusals_r32")?.returned, 1)?;
    same("another's returns", counts("refusals_r31")?.returned, 2)?;
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    with_control(|c| c.records())?;
    still_works()
}

/// More probes at one address than a chain is followed for must be refused, or run.
pub(super) fn long_chain() -> Result<(), String> {
    const COUNT: usize = 300;
    let mut planted = Vec::new();
    for n in 0..COUNT {
        let name = format!("refusals_c{n}");
        if with_control(|c| c.count(&name, target()))?.is_ok() {
            planted.push(name);
        }
    }
    refusals_target(1);
    let silent: Vec<&String> =
        planted.iter().filter(|name| counts(name).is_ok_and(|c| c.hits + c.missed != 1)).collect();
    let result = check(silent.is_empty() && planted.len() >= 256, || {
        format!("{} planted, {} of them neither run nor are counted as missed", planted.len(), silent.len())
    });
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    with_control(|c| c.records())?;
    result.and_then(|()| still_works())
}

/// Functions that can be probed, so many.
fn functions(count: usize) -> Result<Vec<u64>, String> {
    let all = ksyms::all().iter().filter(|s| s.is_function()).map(|s| s.address);
    let mut found = vec![target()];
    for address in all {
        if found.len() < count && with_control(|c| c.boundaries(address))?.is_ok() {
            found.push(address);
        }
    }
    Ok(found)
}

/// As many as `probes::init` has made room for; not one more; and after that again.
pub(super) fn full() -> Result<(), String> {
    const ROOM: usize = 1 << 14;
    let functions = functions(128)?;
    let places: Vec<u64> = functions.iter().copied().cycle().take(ROOM + 1).collect();
    let refused = with_control(|c| c.count_all("refusals_full", &places))?;
    same("one too many", refused.len(), 1)?;
    let why = refused[0].1.to_string();
    check(why.contains("no room for more events") && why.contains("16384"), || why.clone())?;
    same("planted", with_control(|c| c.list().count())?, ROOM)?;
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    with_control(|c| c.records())?;
    let refused = with_control(|c| c.count_all("refusals_full", &places[..ROOM]))?;
    same("exactly as many", refused.len(), 0)?;
    same("result", refusals_target(0), 0x1111_1111)?;
    let said = with_control(|c| c.line("p:refusals_more refusals_target"))?;
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    let said = said.err().map(|e| e.to_string()).unwrap_or_default();
    check(said.contains("no room for more events"), || format!("one more: {said}"))?;
    // What has only counted gives its number back at once.
    with_control(|c| c.line("p:refusals_more refusals_target"))?.map_err(|e| e.to_string())?;
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    with_control(|c| c.records())?;
    still_works()
}
