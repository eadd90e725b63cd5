//! The functions of patterns, as they are placed in one process: a group for each pattern and object.
//!
//! Not each function can be probed; who asks for all of them wants those that can be. So a refusal is counted by its reason
//! and is no error; that nothing matches is one.

use super::catalogue::{Block, Catalogue};
use super::objects::{FileId, Mapped, Objects};
use super::resolve::{Resolved, not_mapped, unmatched};
use core::fmt::Write as _;
use events::{Definition, Place};
use kprobes::Handle;
use std::collections::BTreeMap;
use std::sync::Arc;
use symbols::Pattern;

/// How many functions are registered together: enough that what is done once for all of them costs nothing, and so few
/// that what is kept meanwhile is no matter.
pub(crate) const BATCH: usize = 1 << 15;

/// What was refused, by reason.
pub(crate) type Refused = BTreeMap<&'static str, usize>;

/// The functions of one object that a pattern matches.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) block: Arc<Block>,
    /// The object: its file and where it is.
    object: (FileId, u64),
    name: String,
    /// Which functions of the block have probes, and the probes.
    pub(crate) at: Vec<u32>,
    pub(crate) handles: Vec<Handle>,
    pub(crate) refused: Refused,
    /// The probes were taken off.
    pub(crate) is_off: bool,
}

impl Group {
    pub(crate) fn new(block: Arc<Block>, object: &Mapped) -> Self {
        Self {
            block,
            object: (object.file, object.bias),
            name: object.base_name().to_owned(),
            at: Vec::new(),
            handles: Vec::new(),
            refused: Refused::new(),
            is_off: false,
        }
    }

    /// Whether it is that of a definition in an object.
    pub(crate) fn is_of(&self, definition: usize, object: &Mapped) -> bool {
        self.block.definition == definition && self.object == (object.file, object.bias)
    }

    pub(crate) fn is_mapped(&self, objects: &Objects) -> bool {
        objects.all.iter().any(|object| self.object == (object.file, object.bias))
    }

    /// Where and how a function is placed.
    pub(crate) fn place(&self, nth: usize) -> Option<String> {
        let (handle, &at) = (self.handles.get(nth)?, self.at.get(nth)?);
        Some(format!("{}:{}+0x0 ({})", self.name, self.block.function(at as usize)?.demangled(), handle.placement))
    }

    /// What became of the pattern here.
    pub(crate) fn summary(&self) -> String {
        format!("{}: {}", self.name, sentence(self.block.len(), &self.refused))
    }
}

/// How many functions are probed, how many are not, and why.
pub(crate) fn sentence(functions: usize, refused: &Refused) -> String {
    let many: usize = refused.values().sum();
    if many == 0 {
        return format!("{} function{} probed", grouped(functions), if functions == 1 { "" } else { "s" });
    }
    let mut text = format!(
        "{} functions, {} probed, {} refused:",
        grouped(functions),
        grouped(functions - many.min(functions)),
        grouped(many)
    );
    let mut reasons: Vec<_> = refused.iter().collect();
    reasons.sort_by_key(|&(_, count)| core::cmp::Reverse(*count));
    for (n, (reason, count)) in reasons.into_iter().enumerate() {
        let _ = write!(text, "{} {} {reason}", if n == 0 { "" } else { "," }, grouped(*count));
    }
    text
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Which of the objects a pattern means.
#[derive(Debug)]
pub(crate) enum Choice {
    /// The first that has a match, as for a symbol without an object: the program itself, then its libraries.
    First,
    /// The one of this name.
    Named(String),
    /// All that match.
    All(Pattern),
}

impl Choice {
    pub(crate) fn new(object: Option<&str>) -> Self {
        let Some(object) = object else { return Self::First };
        let pattern = Pattern::new(object);
        pattern.name().map_or(Self::All(pattern), Self::Named)
    }

    /// The indices of the objects among which functions are looked for.
    pub(crate) fn of(&self, objects: &Objects, complete: bool) -> Vec<usize> {
        let all = 0..objects.all.len();
        match self {
            // Before start-up is complete, only the program itself is certain to come first.
            Self::First => all.take(if complete { usize::MAX } else { 1 }).collect(),
            Self::Named(name) => objects.all.iter().position(|o| o.is_called(name)).into_iter().collect(),
            Self::All(pattern) => {
                all.filter(|&at| objects.all.get(at).is_some_and(|o| o.is_matched_by(pattern))).collect()
            }
        }
    }
}

/// What a pattern comes to among the objects that are mapped now.
#[derive(Debug)]
pub(crate) enum Matched {
    /// Functions, and the index of the object that they are in.
    Blocks(Vec<(Arc<Block>, usize)>),
    /// Nothing yet; what is waited for.
    Waits(String),
    /// Nothing; why, and the way out.
    Nothing(String),
}

/// Looks for the functions of the definition with this index, which is a pattern. `complete` as for
/// [`resolve`](super::resolve::resolve).
pub(crate) fn matched(
    objects: &Objects,
    index: usize,
    definition: &Definition,
    complete: bool,
    catalogue: &mut Catalogue,
) -> Matched {
    let Place::Pattern { object, name } = &definition.place else { return Matched::Nothing("it is no pattern".into()) };
    let choice = Choice::new(object.as_deref());
    let chosen = choice.of(objects, complete);
    let mut found = Vec::new();
    for &at in &chosen {
        let Some(object) = objects.all.get(at) else { continue };
        let block = catalogue.block(index, definition, object);
        if block.len() > 0 {
            found.push((block, at));
            if matches!(choice, Choice::First) {
                break;
            }
        }
    }
    if !found.is_empty() {
        return Matched::Blocks(found);
    }
    let nothing = || {
        let objects: Vec<&Mapped> = chosen.iter().filter_map(|&at| objects.all.get(at)).collect();
        Matched::Nothing(unmatched(&objects, name))
    };
    match (&choice, chosen.is_empty()) {
        (Choice::Named(name), true) => match not_mapped(objects, name, complete) {
            Resolved::Failed(why) => Matched::Nothing(why),
            _ => Matched::Waits(name.clone()),
        },
        (Choice::All(_), true) if objects.is_dynamic() => Matched::Waits(definition.place.to_string()),
        (Choice::Named(_), false) => nothing(),
        _ if complete => nothing(),
        _ => Matched::Waits(definition.place.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_by_reason_the_most_frequent_first() {
        assert_eq!(sentence(1, &Refused::new()), "1 function probed");
        let refused = Refused::from([("no code", 10), ("part of kprobes", 12)]);
        assert_eq!(
            sentence(4812, &refused),
            "4,812 functions, 4,790 probed, 22 refused: 12 part of kprobes, 10 no code"
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
