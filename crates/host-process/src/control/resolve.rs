//! From a definition's place to an address of the target.

use super::objects::{Mapped, Objects};
use events::{Place, Resolve};
use std::collections::BTreeSet;
use std::path::Path;
use symbols::{Lookup, Pattern};

/// What became of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It is here.
    Address {
        /// The address in the target.
        address: u64,
        /// Something the user should know.
        note: Option<String>,
    },
    /// Its object is not mapped yet; the name of what is waited for.
    Pending(String),
    /// It cannot be; why, and the way out.
    Failed(String),
}

/// Finds a place among the objects that are mapped now.
///
/// `complete` says that all objects which the program starts with are there: a symbol without an object that is not
/// found then does not exist.
///
/// ```
/// use host_process::control::{Cache, Objects, Resolved, resolve};
///
/// let objects = Objects::read(std::process::id().cast_signed(), &mut Cache::default())?;
/// let atoi = Resolved::Address { address: libc::atoi as *const () as u64, note: None };
/// assert_eq!(resolve(&objects, &events::parse("p libc.so.6:atoi")?.place, true), atoi);
///
/// let unknown = events::parse("p no_such_function")?.place;
/// assert!(matches!(resolve(&objects, &unknown, true), Resolved::Failed(_)));
/// assert_eq!(resolve(&objects, &unknown, false), Resolved::Pending("no_such_function".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn resolve(objects: &Objects, place: &Place, complete: bool) -> Resolved {
    match place {
        Place::Symbol { object, symbol, offset } => by_symbol(objects, object.as_deref(), symbol, *offset, complete),
        Place::FileOffset { path, offset } => by_object(objects, path, complete, |o| {
            let vaddr = o.object.vaddr_of_offset(*offset);
            vaddr.ok_or_else(|| format!("{path} has nothing at file offset {offset:#x} that is loaded into memory"))
        }),
        Place::Address { object: Some(object), addr } => by_object(objects, object, complete, |_| Ok(*addr)),
        Place::Address { object: None, addr } => Resolved::Address { address: *addr, note: None },
        Place::Pattern { .. } => Resolved::Failed("a pattern has many addresses".into()),
        Place::Anywhere => Resolved::Failed("a line that removes a probe has no place".into()),
    }
}

fn by_object(objects: &Objects, name: &str, complete: bool, find: impl Fn(&Mapped) -> Result<u64, String>) -> Resolved {
    match objects.all.iter().find(|o| o.is_called(name)) {
        Some(object) => match find(object) {
            Ok(vaddr) => Resolved::Address { address: object.to_target(vaddr), note: None },
            Err(why) => Resolved::Failed(why),
        },
        None => not_mapped(objects, name, complete),
    }
}

/// An object that is not there may come, unless nothing can come any more.
pub(crate) fn not_mapped(objects: &Objects, name: &str, complete: bool) -> Resolved {
    if name.contains('/') && !Path::new(name).exists() {
        return Resolved::Failed(format!("there is no file {name}"));
    }
    if !complete || objects.is_dynamic() {
        return Resolved::Pending(name.to_owned());
    }
    let names: Vec<&str> = objects.all.iter().map(Mapped::base_name).collect();
    Resolved::Failed(format!(
        "no object `{name}` is mapped, and the program is static: none will be. Mapped: {}",
        names.join(", ")
    ))
}

fn by_symbol(objects: &Objects, object: Option<&str>, symbol: &str, offset: u64, complete: bool) -> Resolved {
    let Some(name) = object else { return anywhere(objects, symbol, offset, complete) };
    match objects.all.iter().find(|o| o.is_called(name)) {
        Some(object) => {
            in_object(object, symbol, offset).unwrap_or_else(|nearest| not_found(symbol, object.base_name(), &nearest))
        }
        None => not_mapped(objects, name, complete),
    }
}

/// A symbol without an object: the program's own first, then the first object that has it.
fn anywhere(objects: &Objects, symbol: &str, offset: u64, complete: bool) -> Resolved {
    let mut nearest = Vec::new();
    for (i, object) in objects.all.iter().enumerate() {
        match in_object(object, symbol, offset) {
            // Before start-up is complete, only the program itself is certain to come first.
            Ok(_) if i > 0 && !complete => break,
            Ok(found) => return found,
            Err(mut names) => nearest.append(&mut names),
        }
    }
    if complete {
        not_found(symbol, "the program and its libraries", &nearest)
    } else {
        Resolved::Pending(symbol.to_owned())
    }
}

fn not_found(symbol: &str, place: &str, nearest: &[String]) -> Resolved {
    Resolved::Failed(with_nearest(format!("no function `{symbol}` in {place}"), nearest))
}

fn with_nearest(mut text: String, nearest: &[String]) -> String {
    if let Some((first, rest)) = nearest.split_first() {
        text += &format!("; the nearest names: {first}");
        rest.iter().take(4).for_each(|n| text += &format!(", {n}"));
    }
    text
}

/// That a pattern matches nothing in any of the objects that it means.
pub(crate) fn unmatched(objects: &[&Mapped], pattern: &str) -> String {
    let place = match objects {
        [object] => object.base_name(),
        _ => "the program and its libraries",
    };
    let letters = Pattern::new(pattern).letters();
    let near = |object: &&Mapped| match object.object.lookup(&letters) {
        Lookup::NotFound { nearest } => nearest,
        Lookup::Found(function) => vec![function.name().to_owned()],
        Lookup::Ambiguous(all) => all.iter().map(|function| function.name().to_owned()).collect(),
    };
    let mut nearest: Vec<String> = objects.iter().flat_map(near).collect();
    let mut seen = BTreeSet::new();
    nearest.retain(|name| seen.insert(name.clone()));
    let text = format!("no function matches `{pattern}` in {place}");
    with_nearest(text, &nearest)
}

/// A symbol in one object; otherwise the nearest names.
fn in_object(object: &Mapped, symbol: &str, offset: u64) -> Result<Resolved, Vec<String>> {
    let function = match object.object.lookup(symbol) {
        Lookup::Found(function) => function,
        Lookup::Ambiguous(all) => {
            let places: Vec<String> =
                all.iter().take(8).map(|f| format!("{:#x} ({})", f.addr, f.demangled())).collect();
            return Ok(Resolved::Failed(format!(
                "`{symbol}` is ambiguous in {}: {}; give one of these addresses: {}:0xADDRESS",
                object.base_name(),
                places.join(", "),
                object.base_name()
            )));
        }
        Lookup::NotFound { nearest } => return Err(nearest),
    };
    if offset != 0 && offset >= function.size {
        return Ok(Resolved::Failed(format!(
            "offset {offset:#x} is beyond the end of `{symbol}`, which has {:#x} bytes",
            function.size
        )));
    }
    let note = function.ifunc.then(|| {
        format!(
            "`{symbol}` is an indirect function (IFUNC): the probe sits on its resolver, which chooses an \
             implementation; `kprobe list` shows those"
        )
    });
    Ok(Resolved::Address { address: object.to_target(function.addr + offset), note })
}

/// Symbols and file offsets in fetch arguments.
pub(crate) struct FetchSymbols<'a>(pub(crate) &'a Objects);

impl Resolve for FetchSymbols<'_> {
    fn symbol(&self, object_hint: Option<&str>, name: &str) -> Option<u64> {
        let hinted = |o: &&Mapped| object_hint.is_some_and(|h| o.is_called(h));
        let first = self.0.all.iter().filter(hinted);
        let rest = self.0.all.iter().filter(|o| !hinted(o));
        first.chain(rest).find_map(|o| o.object.data_symbol(name).map(|v| o.to_target(v)))
    }

    fn file_offset(&self, offset: u64) -> Option<u64> {
        let program = self.0.all.first()?;
        program.object.vaddr_of_offset(offset).map(|v| program.to_target(v))
    }
}
