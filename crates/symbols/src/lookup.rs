//! From a name to a function.

use crate::demangle::path;
use crate::function::{Binding, Function};
use crate::table::Datum;
use std::collections::{HashMap, HashSet};

/// How many names a failed search proposes.
const PROPOSALS: usize = 5;

/// What a name stands for.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// One function. Its aliases, which share the address, are the same function.
    Found(&'a Function),
    /// Several functions at different addresses, by address: static functions of several source
    /// files, overloads, instances of a generic function.
    Ambiguous(Vec<&'a Function>),
    /// No function.
    NotFound {
        /// Names that the caller may have meant, the likeliest first.
        nearest: Vec<String>,
    },
}

/// Indices of functions, by symbol and by path.
#[derive(Default)]
pub(crate) struct Names {
    /// Sorted by symbol.
    raw: Vec<u32>,
}

/// Demangled names without parameters, and whose they are.
pub(crate) type Paths = HashMap<String, Vec<u32>>;

impl Names {
    pub(crate) fn new(functions: &[Function]) -> Self {
        let mut raw: Vec<u32> = (0..u32::try_from(functions.len()).unwrap_or(u32::MAX)).collect();
        raw.sort_by(|&a, &b| functions[a as usize].name.as_bytes().cmp(functions[b as usize].name.as_bytes()));
        Self { raw }
    }

    /// The functions with exactly this symbol, by address.
    pub(crate) fn with_symbol<'a>(&self, functions: &'a [Function], name: &str) -> Vec<&'a Function> {
        let of = |&i: &u32| functions[i as usize].name.as_bytes();
        let first = self.raw.partition_point(|i| of(i) < name.as_bytes());
        let same = self.raw[first..].iter().take_while(|i| of(i) == name.as_bytes());
        same.map(|&i| &functions[i as usize]).collect()
    }

    /// As [`with_symbol`](Self::with_symbol), where `name` may carry a version; without one, the
    /// version that new programs get is meant if there is one.
    pub(crate) fn versioned<'a>(&self, functions: &'a [Function], name: &str) -> Vec<&'a Function> {
        if let Some((base, version)) = name.split_once('@').filter(|(base, _)| !base.is_empty()) {
            let (version, only_default) = version.strip_prefix('@').map_or((version, false), |v| (v, true));
            let mut found = self.with_symbol(functions, base);
            found.retain(|f| f.version() == Some(version) && (!only_default || f.is_default_version()));
            return found;
        }
        let mut found = self.with_symbol(functions, name);
        if found.iter().any(|f| f.is_default_version()) {
            found.retain(|f| f.is_default_version());
        }
        found
    }
}

pub(crate) fn paths(functions: &[Function]) -> Paths {
    let mut paths = Paths::new();
    for (i, function) in (0u32..).zip(functions) {
        if let Some(path) = path(function.name()) {
            if let Some(generic) = without_arguments(&path) {
                paths.entry(generic.to_owned()).or_default().push(i);
            }
            paths.entry(path).or_default().push(i);
        }
    }
    paths
}

/// The name of what a generic function or template is an instance of: `ns::g` of `ns::g<int>`,
/// `std::rt::lang_start` of `std::rt::lang_start::<()>`.
fn without_arguments(path: &str) -> Option<&str> {
    if !path.ends_with('>') {
        return None;
    }
    let mut depth = 0usize;
    for (at, c) in path.char_indices().rev() {
        match c {
            '>' => depth += 1,
            '<' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let name = &path[..at];
            return (c == '<' && !name.is_empty()).then(|| name.strip_suffix("::").unwrap_or(name));
        }
    }
    None
}

/// Functions whose demangled name is `name`, with or without parameters.
pub(crate) fn by_path<'a>(functions: &'a [Function], paths: &Paths, name: &str) -> Vec<&'a Function> {
    let all = |path: &str| paths.get(path).into_iter().flatten().map(|&i| &functions[i as usize]);
    let exact: Vec<_> = all(name).collect();
    if !exact.is_empty() {
        return exact;
    }
    // With parameters: what stands before them is the path. `operator()` and `(anonymous
    // namespace)` begin with a parenthesis of their own.
    let ends = name.match_indices('(').filter(|&(at, _)| at > 0);
    ends.flat_map(|(at, _)| all(&name[..at])).filter(|f| f.demangled() == name).collect()
}

/// The addresses of data whose symbol is `name`, with or without a version. What other objects can
/// see, in the version that new programs get, comes before the rest.
pub(crate) fn data(data: &[Datum], name: &str) -> Vec<u64> {
    let (base, version) = match name.split_once('@') {
        Some((base, version)) => (base, Some(version.trim_start_matches('@'))),
        None => (name, None),
    };
    let right = |d: &&Datum| {
        let same = version.is_none_or(|v| d.version.as_ref().is_some_and(|d| d.name.as_str() == v));
        same && d.name.as_bytes() == base.as_bytes()
    };
    let mut found: Vec<_> = data.iter().filter(right).collect();
    let first_choice = |d: &&Datum| d.binding != Binding::Local && d.version.as_ref().is_none_or(|v| v.is_default);
    if found.iter().any(first_choice) {
        found.retain(first_choice);
    }
    found.into_iter().map(|d| d.addr).collect()
}

/// The addresses of data whose demangled name is `name`.
pub(crate) fn data_by_path(data: &[Datum], name: &str) -> Vec<u64> {
    let right = |d: &&Datum| path(d.name.as_str()).is_some_and(|path| path == name);
    data.iter().filter(right).map(|d| d.addr).collect()
}

pub(crate) fn judge(mut found: Vec<&Function>) -> Option<Lookup<'_>> {
    let first = *found.first()?;
    if found.iter().all(|f| f.addr == first.addr) {
        return Some(Lookup::Found(first));
    }
    found.sort_by_key(|f| f.addr);
    found.dedup_by_key(|f| f.addr);
    Some(Lookup::Ambiguous(found))
}

/// Names that `name` may be a slip of, or the end of: `lang_start` for `std::rt::lang_start`.
pub(crate) fn nearest(functions: &[Function], paths: &Paths, name: &str) -> Vec<String> {
    let wanted = name.split('@').next().unwrap_or(name);
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mangled = |f: &&Function| !f.name().starts_with("_Z") && !f.name().starts_with("_R");
    let symbols = functions.iter().filter(mangled).map(Function::name);
    let candidates = symbols.chain(paths.keys().map(String::as_str)).filter(|c| seen.insert(*c));
    let mut scored: Vec<(u32, &str)> = candidates.filter_map(|c| Some((distance(wanted, c)?, c))).collect();
    scored.sort_unstable();
    scored.into_iter().take(PROPOSALS).map(|(_, c)| c.to_owned()).collect()
}

/// How far `candidate` is from `wanted`; none if nobody would take one for the other.
fn distance(wanted: &str, candidate: &str) -> Option<u32> {
    if candidate.eq_ignore_ascii_case(wanted) {
        return Some(0);
    }
    if candidate.strip_suffix(wanted).is_some_and(|head| head.ends_with(':') || head.ends_with('.')) {
        return Some(1);
    }
    if candidate.trim_start_matches('_') == wanted.trim_start_matches('_') {
        return Some(2);
    }
    // A third of the letters may be wrong: more is another word.
    let most = (wanted.len() / 3).clamp(1, 8);
    if wanted.len().abs_diff(candidate.len()) > most || wanted.len() > 512 {
        return None;
    }
    let edits = strsim::damerau_levenshtein(wanted, candidate);
    (edits <= most).then(|| 2 + u32::try_from(edits).unwrap_or(u32::MAX - 2))
}

#[cfg(test)]
mod tests {
    use super::{distance, without_arguments};

    #[test]
    fn arguments_of_templates_and_generics_are_left_out() {
        assert_eq!(without_arguments("ns::g<int>"), Some("ns::g"));
        assert_eq!(without_arguments("std::rt::lang_start::<()>"), Some("std::rt::lang_start"));
        assert_eq!(without_arguments("a::f::<b<c>, d>"), Some("a::f"));
        for whole in ["ns::f", "A<int>::operator->", "<T as U>::f", "<A>", "operator>>", "operator<", ""] {
            assert_eq!(without_arguments(whole), None, "{whole}");
        }
    }

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        assert!(distance("malloc", "mallok").is_some());
        assert!(distance("lang_start", "std::rt::lang_start") < distance("lang_start", "lang_stat"));
        assert!(distance("_open", "__open").is_some());
        assert_eq!(distance("malloc", "printf"), None);
        assert_eq!(distance("start", "restart"), None);
    }
}
