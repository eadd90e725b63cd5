//! Patterns of function names, as a shell writes them.

use crate::demangle::{demangle, path};

/// Whether `pattern` names the function whose symbol is `name`.
///
/// A pattern with one of `*`, `?`, `[` is a shell glob over the whole name (`*` also matches `::`
/// and `/`); any other must be equal. The raw symbol, the demangled name, and the demangled name
/// without parameters are tried in turn, so `ns::f`, `ns::*` and `_ZN2ns*` all find `_ZN2ns1fEi`.
///
/// ```
/// use symbols::matches;
///
/// assert!(matches("dup[23]", "dup3") && !matches("dup[23]", "dup"));
/// assert!(matches("ns::*", "_ZN2ns1fEi") && matches("ns::f(int)", "_ZN2ns1fEi"));
/// assert!(!matches("alloc", "malloc") && matches("*alloc", "malloc"));
/// ```
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    Pattern::new(pattern).matches(name)
}

/// A pattern as [`matches()`] has it, made ready for many names.
///
/// ```
/// use symbols::Pattern;
///
/// let pattern = Pattern::new("mem*");
/// assert!(pattern.matches("memcpy") && !pattern.matches("wmemcpy"));
/// assert_eq!(pattern.name(), None);
/// // No mangled name is looked into here.
/// assert!(pattern.is_match("memcpy") && Pattern::new("ns::*").matches("_ZN2ns1fEi"));
/// assert!(!Pattern::new("ns::*").is_match("_ZN2ns1fEi"));
/// // What can match no more than one name.
/// assert_eq!(Pattern::new(r"operator new\[]").name().as_deref(), Some("operator new[]"));
/// // What a name would have to be like, for whoever looks for the one that was meant.
/// assert_eq!(Pattern::new("mem*cpy?").letters(), "memcpy");
/// ```
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    is_glob: bool,
    glob: Vec<char>,
}

impl Pattern {
    /// A pattern of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), is_glob: is_glob(text), glob: text.chars().collect() }
    }

    /// Whether it names the function whose symbol is `name`: see [`matches()`].
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.is_match(name)
            || (name.starts_with('_')
                && (path(name).is_some_and(|p| self.is_match(&p)) || self.is_match(&demangle(name))))
    }

    /// Whether it is all of `text`, which has no other forms.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        // A name may have such characters itself.
        self.text == text || self.is_glob && (self.text == "*" || glob(&self.glob, text))
    }

    /// The only name that it can match, if it has nothing in it that stands for more, or it is escaped.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let mut name = String::new();
        let mut characters = self.text.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' | '?' | '[' => return None,
                '\\' => name.extend(characters.next()),
                _ => name.push(character),
            }
        }
        Some(name)
    }

    /// What stands for itself in it.
    #[must_use]
    pub fn letters(&self) -> String {
        self.text.chars().filter(|c| !matches!(c, '*' | '?' | '[' | ']' | '\\')).collect()
    }
}

pub(crate) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// Whether the glob `pattern` matches all of `text`: `*` any run, `?` one character, `[a-z]` and
/// `[!a-z]` (or `[^a-z]`) one of or none of a set, `\` takes the next character as it is. A `[`
/// without its `]` stands for itself.
fn glob(pattern: &[char], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to come back to: after the latest `*`, which then takes one character more. One level
    // is enough for globs.
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(next) = step(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((after_star, taken)) = retry {
            retry = Some((after_star, taken + 1));
            (p, t) = (after_star, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Matches one character; returns where the pattern goes on.
fn step(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => match set(pattern, p, c) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            None => (c == '[').then_some(p + 1),
        },
        '\\' if p + 1 < pattern.len() => (pattern[p + 1] == c).then_some(p + 2),
        literal => (literal == c).then_some(p + 1),
    }
}

/// Reads the set that begins at `p`; none if it does not end.
fn set(pattern: &[char], p: usize, c: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(p + 1), Some('!' | '^'));
    let first = p + 1 + usize::from(negated);
    let (mut i, mut found) = (first, false);
    loop {
        let low = *pattern.get(i)?;
        if low == ']' && i > first {
            return Some((found != negated, i + 1));
        }
        let high = match (pattern.get(i + 1), pattern.get(i + 2)) {
            (Some('-'), Some(&high)) if high != ']' => {
                i += 2;
                high
            }
            _ => low,
        };
        found |= (low..=high).contains(&c);
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn without_metacharacters_the_name_must_be_equal() {
        assert!(matches("malloc", "malloc"));
        assert!(!matches("malloc", "malloc_usable_size"));
        assert!(!matches("", "malloc"));
    }

    #[test]
    fn stars_match_any_run_and_backtrack() {
        assert!(matches("*", ""));
        assert!(matches("sys_*", "sys_open"));
        assert!(matches("*a*ab", "xxaaab"));
        assert!(!matches("*a*ab", "xxaaabc"));
        assert!(matches("p**d", "pread"));
    }

    #[test]
    fn question_marks_match_one_character() {
        assert!(matches("dup?", "dup2"));
        assert!(!matches("dup?", "dup"));
    }

    #[test]
    fn sets_and_ranges_match_one_of_them() {
        assert!(matches("dup[23]", "dup3"));
        assert!(matches("f[a-c]", "fb"));
        assert!(!matches("f[!a-c]", "fb"));
        assert!(matches("f[]x]", "f]"));
        assert!(matches("f[a-]", "f-"));
    }

    #[test]
    fn an_open_set_stands_for_itself() {
        assert!(matches("f[a*", "f[abc"));
        assert!(matches(r"f\*", "f*") && !matches(r"f\*", "fx"));
    }

    #[test]
    fn demangled_names_match_with_and_without_parameters() {
        for pattern in ["ns::f", "ns::*", "ns::f(int)", "_ZN2ns1fEi", "_ZN2ns*"] {
            assert!(matches(pattern, "_ZN2ns1fEi"), "{pattern}");
        }
        assert!(!matches("ns::g*", "_ZN2ns1fEi"));
    }
}
