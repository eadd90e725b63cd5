//! Names as programmers write them.

use core::fmt::{self, Write};
use cpp_demangle::{DemangleOptions, Symbol};

/// Longest demangled name. Substitutions let a short hostile symbol stand for gigabytes.
const LONGEST: usize = 16 << 10;
/// Longest mangled name that is tried: C++ templates reach tens of kilobytes.
const LONGEST_RAW: usize = 64 << 10;

/// A string that refuses to grow past [`LONGEST`].
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len() + s.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}

/// The name as the programmer wrote it: Rust without its hash, C++ with parameters. A name that is
/// not mangled, or that cannot be demangled within bounds, is returned as it is.
///
/// ```
/// use symbols::demangle;
///
/// assert_eq!(demangle("_ZN3std2rt10lang_start17h0123456789abcdefE"), "std::rt::lang_start");
/// assert_eq!(demangle("_ZN2ns1fEi"), "ns::f(int)");
/// assert_eq!(demangle("malloc"), "malloc");
/// ```
#[must_use]
pub fn demangle(raw: &str) -> String {
    rust(raw).or_else(|| cpp(raw, DemangleOptions::new())).unwrap_or_else(|| raw.to_owned())
}

/// The name without parameters, return type and hash: what one types (`ns::f`,
/// `std::rt::lang_start`); none if `raw` is not mangled.
///
/// The compiler's partial copies of a function (`.cold`, `.part.0`) keep their suffix: they are not
/// the function.
pub(crate) fn path(raw: &str) -> Option<String> {
    rust(raw).or_else(|| {
        let end = raw.find('.').unwrap_or(raw.len());
        let mut name = cpp(&raw[..end], DemangleOptions::new().no_params().no_return_type())?;
        name.push_str(&raw[end..]);
        Some(name)
    })
}

/// Whether the name is one that only a Rust compiler makes.
pub(crate) fn is_rust(raw: &str) -> bool {
    let Some(name) = raw.strip_prefix("_R").or_else(|| raw.strip_prefix("_ZN")) else { return false };
    // Legacy mangling is C++'s with a hash as the last component: `17h` and 16 hexadecimal digits.
    let legacy = || name.rfind("17h").is_some_and(|at| name[at + 3..].starts_with(|c: char| c.is_ascii_hexdigit()));
    (raw.starts_with("_R") || legacy()) && rust(raw).is_some()
}

fn rust(raw: &str) -> Option<String> {
    if raw.len() > LONGEST_RAW {
        return None;
    }
    let name = rustc_demangle::try_demangle(raw).ok()?;
    // C++ names that happen to parse as legacy Rust ones have no hash; they belong to the other
    // demangler.
    let mut full = Bounded::default();
    let mut short = Bounded::default();
    write!(full, "{name}").ok()?;
    write!(short, "{name:#}").ok()?;
    (raw.starts_with("_R") || full.0 != short.0).then_some(short.0)
}

fn cpp(raw: &str, options: DemangleOptions) -> Option<String> {
    if !raw.starts_with("_Z") || raw.len() > LONGEST_RAW {
        return None;
    }
    let symbol = Symbol::new(raw).ok()?;
    let mut name = Bounded::default();
    symbol.structured_demangle(&mut name, &options).ok()?;
    Some(name.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpp_names_carry_their_parameters() {
        assert_eq!(demangle("_ZN2ns1fEi"), "ns::f(int)");
        assert_eq!(path("_ZN2ns1fEi").as_deref(), Some("ns::f"));
    }

    #[test]
    fn template_functions_lose_their_return_type() {
        assert_eq!(demangle("_ZN2ns1gIiEEvT_"), "void ns::g<int>(int)");
        assert_eq!(path("_ZN2ns1gIiEEvT_").as_deref(), Some("ns::g<int>"));
    }

    #[test]
    fn rust_names_lose_their_hash_in_both_manglings() {
        assert_eq!(demangle("_ZN3std2rt10lang_start17h0123456789abcdefE"), "std::rt::lang_start");
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert!(is_rust("_ZN3std2rt10lang_start17h0123456789abcdefE"));
        assert!(!is_rust("_ZN2ns1fEi"));
    }

    #[test]
    fn the_cold_part_of_a_function_is_not_the_function() {
        assert_eq!(path("_ZN2ns1fEi.cold").as_deref(), Some("ns::f.cold"));
    }

    #[test]
    fn plain_names_are_left_alone() {
        for name in ["main", "", "_Z", "_R", "runtime.main", "_ZN"] {
            assert_eq!(demangle(name), name);
        }
        assert_eq!(path("main"), None);
    }

    #[test]
    fn a_symbol_that_stands_for_gigabytes_is_left_alone() {
        // Each template argument list names the one before twice: 2^60 names.
        let mut raw = "_Z1fI1AIiiE".to_owned();
        for i in 0..30 {
            let _ = write!(raw, "1BIS{}_S{}_E", radix36(i), radix36(i));
        }
        raw.push_str("EvT_");
        assert!(demangle(&raw).len() <= LONGEST.max(raw.len()));
    }

    fn radix36(i: u32) -> String {
        char::from_digit(i % 36, 36).map(|c| c.to_ascii_uppercase().to_string()).unwrap_or_default()
    }
}
