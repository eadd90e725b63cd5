//! The events of a trace: those that its definitions name, and one for each function that a pattern matches.
//!
//! An event is known by a number, to the target and to whoever reads what it has recorded. A definition's own event has
//! the definition's index. Those of a pattern's functions follow, a *block* of them for each object file: the same in all
//! processes that map it, so that what they count is one sum. A block keeps four bytes for each of its functions, and finds
//! their names where they are anyway, in the file's symbols.
//!
//! A pattern that was given a name (`p:NAME LIB:mem*`) has one event, of that name, for all its functions.

use super::objects::{FileId, Mapped};
use crate::abi::EVENTS;
use events::{Definition, Kind, Place};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use symbols::{Binding, Function, Object, Pattern};

/// The longest name of an event, in bytes.
const MAX_NAME: usize = 63;

/// Which events there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    blocks: Vec<Arc<Block>>,
    /// How many numbers are given out.
    next: u32,
    /// What the names of events hash to.
    names: HashSet<u32>,
}

/// The functions of one object file that a pattern matches, each address once.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) definition: usize,
    file: FileId,
    object: Arc<Object>,
    /// The event of the first function; the definition's own, if it is that of all.
    first: u32,
    is_one: bool,
    /// Which of the object's functions.
    functions: Vec<u32>,
    /// Behind names that another event has already.
    suffixes: BTreeMap<u32, u32>,
}

impl Block {
    pub(crate) fn len(&self) -> usize {
        self.functions.len()
    }

    /// The event of the function at a place in the block.
    pub(crate) fn event(&self, at: usize) -> u32 {
        if self.is_one { self.first } else { self.first + at as u32 }
    }

    /// Whether each function has an event of its own.
    pub(crate) fn is_each(&self) -> bool {
        !self.is_one
    }

    /// The addresses of the functions, in the file.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.functions.iter().filter_map(|&index| Some(self.object.functions().get(index as usize)?.addr))
    }

    pub(crate) fn function(&self, at: usize) -> Option<&Function> {
        self.object.functions().get(*self.functions.get(at)? as usize)
    }

    /// The name of the event of the function at a place in the block.
    pub(crate) fn name(&self, at: usize) -> Option<String> {
        let name = identifier(self.function(at)?.name());
        Some(match self.suffixes.get(&(at as u32)) {
            Some(suffix) => with_suffix(&name, *suffix),
            None => name,
        })
    }
}

impl Catalogue {
    pub(crate) fn new(definitions: &[Definition]) -> Self {
        let names = definitions.iter().map(|d| hash(&d.event_name())).collect();
        Self { next: definitions.len() as u32, names, blocks: Vec::new() }
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.next as usize
    }

    /// The functions of an object that a pattern matches; an empty block if there are none.
    pub(crate) fn block(&mut self, index: usize, definition: &Definition, mapped: &Mapped) -> Arc<Block> {
        let known = |block: &&Arc<Block>| block.definition == index && block.file == mapped.file;
        if let Some(block) = self.blocks.iter().find(known) {
            return block.clone();
        }
        let Place::Pattern { name, .. } = &definition.place else { return self.add(index, mapped, Vec::new(), true) };
        let functions = matching(&mapped.object, &Pattern::new(name));
        self.add(index, mapped, functions, definition.event.is_some())
    }

    fn add(&mut self, definition: usize, mapped: &Mapped, mut functions: Vec<u32>, is_one: bool) -> Arc<Block> {
        let first = if is_one { definition as u32 } else { self.next };
        let mut suffixes = BTreeMap::new();
        if !is_one {
            // More cannot be counted.
            functions.truncate(EVENTS.saturating_sub(self.next as usize));
            self.next += functions.len() as u32;
            suffixes = self.tell_apart(&mapped.object, &functions);
        }
        let object = mapped.object.clone();
        let block = Block { definition, file: mapped.file, object, first, is_one, functions, suffixes };
        let block = Arc::new(block);
        self.blocks.push(block.clone());
        block
    }

    /// Finds suffixes for names that are taken.
    fn tell_apart(&mut self, object: &Object, functions: &[u32]) -> BTreeMap<u32, u32> {
        let mut suffixes = BTreeMap::new();
        for (at, function) in (0..).zip(functions) {
            let Some(function) = object.functions().get(*function as usize) else { continue };
            let name = identifier(function.name());
            let names = core::iter::once(name.clone()).chain((1..).map(|suffix| with_suffix(&name, suffix)));
            for (suffix, name) in (0..).zip(names) {
                // Two names with one hash, of which there are few: the second gets a suffix that it does not need.
                if self.names.insert(hash(&name)) {
                    suffixes.extend((suffix > 0).then_some((at, suffix)));
                    break;
                }
            }
        }
        suffixes
    }

    /// The definition that an event belongs to.
    pub(crate) fn definition(&self, event: usize, definitions: usize) -> Option<usize> {
        if event < definitions { Some(event) } else { self.find(event).map(|(block, _)| block.definition) }
    }

    /// The name of the event of a pattern's function.
    pub(crate) fn name(&self, event: usize) -> Option<String> {
        self.find(event).and_then(|(block, at)| block.name(at))
    }

    fn find(&self, event: usize) -> Option<(&Block, usize)> {
        // Blocks of single events come between, with numbers of their own.
        let holds = |block: &&Arc<Block>| {
            block.is_each() && (block.first as usize..block.first as usize + block.len()).contains(&event)
        };
        self.blocks.iter().find(holds).map(|block| (&**block, event - block.first as usize))
    }
}

/// The functions of an object that a pattern matches, by address; of several names of one function one that others can
/// see, if it matches, with the fewest underscores.
pub(crate) fn matching(object: &Object, pattern: &Pattern) -> Vec<u32> {
    let functions = object.functions();
    let rank = |f: &Function| {
        let name = f.name();
        (f.binding == Binding::Local, name.len() - name.trim_start_matches('_').len(), name.len())
    };
    let mut found: Vec<u32> = Vec::new();
    let mut best = None;
    for (index, function) in (0..).zip(functions) {
        if function.name().is_empty() || !pattern.matches(function.name()) {
            continue;
        }
        let this = (function.addr, rank(function));
        match (&best, found.last_mut()) {
            (Some((addr, rank)), Some(last)) if *addr == this.0 => {
                if this.1 < *rank {
                    (*last, best) = (index, Some(this));
                }
            }
            _ => {
                found.push(index);
                best = Some(this);
            }
        }
    }
    found.shrink_to_fit();
    found
}

fn hash(name: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as u32
}

/// A name as events have it.
fn identifier(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let begins = name.starts_with(|c: char| c.is_ascii_digit());
    begins.then_some('_').into_iter().chain(name.chars().map(letter)).take(MAX_NAME).collect()
}

fn with_suffix(name: &str, suffix: u32) -> String {
    let suffix = format!("_{suffix}");
    let kept: String = name.chars().take(MAX_NAME - suffix.len()).collect();
    kept + &suffix
}

/// How a definition is called where its functions have events of their own: by its place, as the user wrote it.
///
/// ```
/// use host_process::control::title;
///
/// assert_eq!(title(&events::parse("p libc.so.6:mem*")?), "libc.so.6:mem*");
/// assert_eq!(title(&events::parse("r *:malloc")?), "r *:malloc");
/// assert_eq!(title(&events::parse("p:copies libc.so.6:mem*")?), "copies");
/// assert_eq!(title(&events::parse("p libc.so.6:memcpy")?), "p_memcpy_0");
/// # Ok::<(), events::SyntaxError>(())
/// ```
#[must_use]
pub fn title(definition: &Definition) -> String {
    match (&definition.place, definition.kind) {
        (Place::Pattern { .. }, Kind::Return { .. }) if definition.event.is_none() => format!("r {}", definition.place),
        (Place::Pattern { .. }, _) if definition.event.is_none() => definition.place.to_string(),
        _ => definition.event_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Cache, Objects};

    fn libc() -> Mapped {
        let objects = Objects::read(std::process::id().cast_signed(), &mut Cache::default()).unwrap();
        objects.all.into_iter().find(|o| o.is_called("libc.so.6")).unwrap()
    }

    #[test]
    fn each_address_is_matched_once_by_its_most_visible_name() {
        let libc = libc();
        let found = matching(&libc.object, &Pattern::new("*"));
        let functions = libc.object.functions();
        let addresses: Vec<u64> = found.iter().map(|&i| functions[i as usize].addr).collect();
        assert!(addresses.is_sorted_by(|a, b| a < b));
        let name = |pattern| functions[matching(&libc.object, &Pattern::new(pattern))[0] as usize].name();
        assert_eq!(name("*getpid"), "getpid");
        // Another name of the same function is what was asked for.
        assert_eq!(name("__getpid"), "__getpid");
    }

    #[test]
    fn names_are_identifiers_and_no_two_are_equal() {
        assert_eq!(identifier("main.(*T).Run"), "main___T__Run");
        assert_eq!(identifier("0start"), "_0start");
        let long = "x".repeat(80);
        assert_eq!(identifier(&long).len(), 63);
        assert_eq!(with_suffix(&identifier(&long), 12).len(), 63);

        let definitions = ["p libc.so.6:mem*", "r libc.so.6:memcpy*"].map(|line| events::parse(line).unwrap());
        let (libc, mut catalogue) = (libc(), Catalogue::new(&definitions));
        let all = catalogue.block(0, &definitions[0], &libc);
        let again = catalogue.block(1, &definitions[1], &libc);
        let names: Vec<String> = (2..catalogue.len()).filter_map(|event| catalogue.name(event)).collect();
        assert_eq!(names.len(), all.len() + again.len());
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.contains(&"memcpy".into()) && names.contains(&"memcpy_1".into()));
        assert_eq!(catalogue.definition(2, 2), Some(0));
        assert_eq!(catalogue.definition(catalogue.len() - 1, 2), Some(1));
        // The same again.
        assert!(Arc::ptr_eq(&all, &catalogue.block(0, &definitions[0], &libc)));
    }

    #[test]
    fn a_pattern_with_a_name_has_one_event() {
        let definition = events::parse("p:copies libc.so.6:mem*").unwrap();
        let (libc, mut catalogue) = (libc(), Catalogue::new(core::slice::from_ref(&definition)));
        let block = catalogue.block(0, &definition, &libc);
        assert!(block.len() > 5 && !block.is_each());
        assert_eq!((block.event(0), block.event(5), catalogue.len()), (0, 0, 1));
        assert_eq!(catalogue.name(0), None);
    }
}
