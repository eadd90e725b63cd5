//! What only the tool can do for a module: its calls of `kprobes_register` and its like.
//!
//! All that a module hands over is checked like a file: a bad pointer, an absurd number, a probe at a bad place make the
//! call fail with a reason, and nothing else.

use super::table::{self, Own};
use crate::abi::INSTANCES;
use crate::abi::modules::{Area, Entry, PROBES as MODULE_PROBES, call};
use crate::control::inject::map;
use crate::control::member::{DEFAULT_MAXACTIVE, Member};
use crate::control::resolve::{Resolved, resolve};
use crate::control::table::{half_at, word_at};
use crate::control::{HostError, Result};
use core::mem::offset_of;
use hit::Counters;
use kprobes::raw::{Failure, NAME_BYTES, PROBES, Probe, Text, kind};
use kprobes::{DATA_BYTES, HandlerData, Place, Placement, ProbeKind, Request};

/// What a call gives that has failed.
const FAILED: u64 = u64::MAX;
const DONE: u64 = 0;
const PAGE: u64 = 0x1000;

/// Does what module `number` asks: a call's number and its arguments. The answer is for the module.
pub(super) fn serve(member: &mut Member, number: u32, [what, a, b, c, d]: &[u64; 5]) -> Result<u64> {
    match *what {
        call::REGISTER => match register(member, number, *a, *b, *c)? {
            Ok(()) => Ok(DONE),
            Err((index, why)) => {
                tell(member, *d, index, &why);
                Ok(FAILED)
            }
        },
        call::UNREGISTER => unregister(member, number, *a, *b),
        call::ENABLE => enable(member, number, *a as u32, *b as u32 != 0),
        call::SYMBOL => Ok(symbol(member, *a, *b).unwrap_or(0)),
        _ => Ok(FAILED),
    }
}

/// Which of the probes is refused, and why.
type Refused = (usize, String);

fn register(
    member: &mut Member,
    number: u32,
    probes: u64,
    count: u64,
    ids: u64,
) -> Result<core::result::Result<(), Refused>> {
    let count = match usize::try_from(count) {
        Ok(0) => return Ok(Ok(())),
        Ok(count) if count <= PROBES => count,
        _ => return Ok(Err((0, format!("{count} probes in one call; {PROBES} are the most")))),
    };
    let mut bytes = vec![0; count * size_of::<Probe>()];
    if member.target.memory().read(probes, &mut bytes).is_err() {
        return Ok(Err((0, format!("the list of probes at {probes:#x} cannot be read"))));
    }
    let Some(given) = member.modules.free_ids(count) else {
        return Ok(Err((0, format!("no room for {count} more probes of modules ({MODULE_PROBES})"))));
    };
    let mut requests = Vec::with_capacity(count);
    for (index, (bytes, id)) in bytes.chunks_exact(size_of::<Probe>()).zip(&given).enumerate() {
        match request(member, number, bytes, *id)? {
            Ok(request) => requests.push(request),
            Err(why) => return Ok(Err((index, why))),
        }
    }
    let area = reserve(member, &mut requests)?;
    clear_counters(member, &given)?;
    let registered = member.registry.register(&mut member.target, &requests);
    let handles = match registered {
        Ok(handles) => handles,
        Err((index, error)) => {
            area.map_or(Ok(()), |area| give_back(member, area))?;
            return Ok(Err((index, error.to_string())));
        }
    };
    if let Some(area) = area {
        adopt(member, number, area)?;
    }
    let handles = given.iter().zip(handles);
    member.modules.probes.extend(handles.map(|(&id, handle)| (id, Own { module: number, handle })));
    let bytes: Vec<u8> = given.iter().flat_map(|id| id.to_le_bytes()).collect();
    if member.target.memory().write(ids, &bytes).is_err() {
        take_off(member, &given)?;
        return Ok(Err((0, format!("the ids at {ids:#x} cannot be written"))));
    }
    Ok(Ok(()))
}

/// What a module asks for, as the registry takes it; or why not.
fn request(member: &mut Member, number: u32, b: &[u8], id: u32) -> Result<core::result::Result<Request, String>> {
    let word = |offset: usize| word_at(b, offset);
    let half = |offset: usize| half_at(b, offset);
    let address = match address(member, b) {
        Ok(address) => address,
        Err(why) => return Ok(Err(why)),
    };
    let (before, after, fault) =
        (word(offset_of!(Probe, before)), word(offset_of!(Probe, after)), word(offset_of!(Probe, fault)));
    let modules = table::stored(member.target.memory(), member.target.agent.home)?;
    let own = modules.into_iter().find(|m| m.number == number);
    let code = own.map_or(0..0, |m| m.base..m.base + m.text);
    if let Some(outside) = [before, after, fault].into_iter().find(|h| *h != 0 && !code.contains(h)) {
        return Ok(Err(format!("a handler at {outside:#x} is not in the module's code")));
    }
    let (kind, light) =
        (half(offset_of!(Probe, kind)) & !kind::LIGHT, half(offset_of!(Probe, kind)) & kind::LIGHT != 0);
    let entry_bytes = half(offset_of!(Probe, entry_bytes));
    let handlers = HandlerData {
        before,
        after,
        fault,
        user: word(offset_of!(Probe, user)),
        area: 0,
        entry_bytes: if kind == kind::KRETPROBE { entry_bytes } else { 0 },
        owner: number + 1,
        mirror: kind == kind::JPROBE,
        light,
    };
    let kind = match kind {
        kind::KPROBE if before | after | fault == 0 => ProbeKind::Entry,
        kind::JPROBE if before == 0 => return Ok(Err("a jprobe without a mirror".into())),
        kind::KPROBE | kind::JPROBE => ProbeKind::Handler,
        kind::KRETPROBE => match half(offset_of!(Probe, maxactive)) {
            0 => ProbeKind::Return { maxactive: DEFAULT_MAXACTIVE },
            maxactive if maxactive as usize <= INSTANCES => ProbeKind::Return { maxactive },
            maxactive => return Ok(Err(format!("maxactive {maxactive}: {INSTANCES} are the most"))),
        },
        unknown => return Ok(Err(format!("a probe of the unknown kind {unknown}"))),
    };
    if entry_bytes as usize > DATA_BYTES {
        return Ok(Err(format!("{entry_bytes} bytes of data for each call; {DATA_BYTES} are the most")));
    }
    let request =
        Request { handlers, disabled: half(offset_of!(Probe, disabled)) != 0, ..Request::counting(address, kind, id) };
    Ok(supported(member, &request).map(|()| request))
}

/// Refuses return probes whose handlers would not be called.
fn supported(member: &mut Member, request: &Request) -> core::result::Result<(), String> {
    if !matches!(request.kind, ProbeKind::Return { .. }) {
        return Ok(());
    }
    match member.registry.check(&mut member.target, request).map_err(|e| e.to_string())? {
        Placement::ReturnSites(_, why) => {
            Err(format!("returns of this function can be counted, but no handler can run there: {why}"))
        }
        _ => Ok(()),
    }
}

/// The address of a probe.
fn address(member: &Member, b: &[u8]) -> core::result::Result<u64, String> {
    let address = word_at(b, offset_of!(Probe, address));
    let length = word_at(b, offset_of!(Probe, symbol) + offset_of!(Text, length));
    match (address, length) {
        (0, 0) => Err("a probe needs an address or a symbol".into()),
        (address, 0) => Ok(address),
        (0, length) => {
            let name = text(member, word_at(b, offset_of!(Probe, symbol) + offset_of!(Text, bytes)), length)?;
            find(member, &name, word_at(b, offset_of!(Probe, offset)))
        }
        _ => Err("a probe has an address or a symbol, not both".into()),
    }
}

/// A text of the module's.
fn text(member: &Member, at: u64, length: u64) -> core::result::Result<String, String> {
    let length = usize::try_from(length).ok().filter(|&l| l <= NAME_BYTES);
    let length = length.ok_or_else(|| format!("a name of more than {NAME_BYTES} bytes"))?;
    let mut bytes = vec![0; length];
    let read = member.target.memory().read(at, &mut bytes);
    read.map_err(|_| format!("the name at {at:#x} cannot be read"))?;
    String::from_utf8(bytes).map_err(|_| "a name that is no text".into())
}

/// The address of a symbol in the target.
fn find(member: &Member, name: &str, offset: u64) -> core::result::Result<u64, String> {
    let place = Place::Symbol { name, offset };
    let Some((object, symbol)) = place.names() else { return Err("no name".into()) };
    let place = events::Place::Symbol { object: object.map(str::to_owned), symbol: symbol.to_owned(), offset };
    match resolve(&member.target.objects, &place, member.complete) {
        Resolved::Address { address, .. } => Ok(address),
        Resolved::Pending(object) => Err(format!("{name}: no object {object} is mapped now")),
        Resolved::Failed(why) => Err(why),
    }
}

fn symbol(member: &Member, at: u64, length: u64) -> Option<u64> {
    find(member, &text(member, at, length).ok()?, 0).ok()
}

/// Maps one area for the data of all return probes in a batch; its address and size.
fn reserve(member: &mut Member, requests: &mut [Request]) -> Result<Option<(u64, u64)>> {
    let bytes = |r: &Request| match r.kind {
        ProbeKind::Return { maxactive } if r.handlers.entry_bytes != 0 => {
            8 * HandlerData::area_words(r.handlers.entry_bytes, maxactive) as u64
        }
        _ => 0,
    };
    let total: u64 = requests.iter().map(bytes).sum();
    if total == 0 {
        return Ok(None);
    }
    let size = (total + size_of::<Area>() as u64).next_multiple_of(PAGE);
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let at = member.target.with_remote(|remote| map(remote, 0, size, protection, 0))?;
    let mut next = at + size_of::<Area>() as u64;
    for request in requests.iter_mut().filter(|r| bytes(r) != 0) {
        request.handlers.area = next;
        next += bytes(request);
    }
    Ok(Some((at, size)))
}

fn give_back(member: &mut Member, (at, size): (u64, u64)) -> Result<()> {
    member.target.with_remote(|remote| remote.call("munmap", libc::SYS_munmap, [at, size, 0, 0, 0, 0])).map(drop)
}

/// The area belongs to the module from now on.
fn adopt(member: &Member, number: u32, (at, size): (u64, u64)) -> Result<()> {
    let memory = member.target.memory();
    let first = table::entry_field(member.target.agent.home, number, offset_of!(Entry, areas));
    memory.write(at + offset_of!(Area, next) as u64, &memory.word(first)?.to_le_bytes())?;
    memory.write(at + offset_of!(Area, size) as u64, &size.to_le_bytes())?;
    memory.write(first, &at.to_le_bytes())
}

fn clear_counters(member: &Member, ids: &[u32]) -> Result<()> {
    let first = table::field(member.target.agent.home, offset_of!(crate::abi::modules::Modules, counters));
    for id in ids {
        let at = first + u64::from(id - crate::abi::modules::FIRST_ID) * size_of::<Counters>() as u64;
        member.target.memory().write(at, &[0; size_of::<Counters>()])?;
    }
    Ok(())
}

fn unregister(member: &mut Member, number: u32, at: u64, count: u64) -> Result<u64> {
    let Some(ids) = ids(member, at, count) else { return Ok(FAILED) };
    if member.modules.of(number, &ids).is_none() {
        return Ok(FAILED);
    }
    take_off(member, &ids)?;
    Ok(DONE)
}

fn ids(member: &Member, at: u64, count: u64) -> Option<Vec<u32>> {
    let count = usize::try_from(count).ok().filter(|&c| c <= MODULE_PROBES)?;
    let mut bytes = vec![0; 4 * count];
    if count > 0 {
        member.target.memory().read(at, &mut bytes).ok()?;
    }
    Some(bytes.chunks_exact(4).map(|b| half_at(b, 0)).collect())
}

fn take_off(member: &mut Member, ids: &[u32]) -> Result<()> {
    let own: Vec<Own> = ids.iter().filter_map(|id| member.modules.probes.remove(id)).collect();
    let handles: Vec<kprobes::Handle> = own.into_iter().map(|own| own.handle).collect();
    member.registry.unregister(&mut member.target, &handles).map_err(HostError::Probe)
}

fn enable(member: &mut Member, number: u32, id: u32, on: bool) -> Result<u64> {
    let Some(handles) = member.modules.of(number, &[id]) else { return Ok(FAILED) };
    match member.registry.enable(&mut member.target, &handles, on) {
        Ok(()) => Ok(DONE),
        Err(kprobes::Error::Host(why)) => Err(HostError::Probe(kprobes::Error::Host(why))),
        Err(_) => Ok(FAILED),
    }
}

/// Writes the reason to where the module wants it, if that can be written.
fn tell(member: &Member, at: u64, index: usize, why: &str) {
    let mut failure = Failure::NONE;
    failure.set(index as u32, why);
    let bytes = [&failure.index.to_le_bytes()[..], &failure.length.to_le_bytes(), &failure.text].concat();
    if at != 0 {
        // A pointer that leads nowhere is the module's own mistake.
        let _ = member.target.memory().write(at, &bytes);
    }
}
