//! Every public function of a library is used in an example that is compiled: on itself, on its type, or on its module,
//! in the file where the function stands.
//!
//! Rustc's `unreachable_pub` sees to it that what is called `pub` can be called. That an example *means* something no
//! tool can say; that there is one, and that it names the function, this rule can.

use super::{File, Violation};

const FENCE: &str = "```";
/// What rustdoc does not compile.
const NOT_COMPILED: &[&str] = &["text", "ignore", "console"];

pub(super) fn check(file: &File) -> Vec<Violation> {
    if !(file.path.starts_with("crates/") && file.path.contains("/src/")) {
        return Vec::new();
    }
    let examples = examples(&file.text);
    let lines: Vec<_> = file.text.lines().collect();
    let functions = lines.iter().enumerate().filter_map(|(at, line)| Some((at, public_function(line)?)));
    let bare = functions.filter(|(at, name)| !is_hidden(&lines[..*at]) && !is_used(&examples, name));
    let what = |name| format!("{name} is public and in no example of this file");
    bare.map(|(at, name)| Violation::new(format!("{}:{}", file.path, at + 1), what(name))).collect()
}

/// The code of the compiled examples in the file's documentation.
fn examples(text: &str) -> String {
    let (mut code, mut inside) = (String::new(), None);
    for line in text.lines().map(str::trim_start) {
        let Some(line) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            inside = None;
            continue;
        };
        if let Some(kind) = line.trim_start().strip_prefix(FENCE) {
            inside = match inside {
                None => Some(!NOT_COMPILED.iter().any(|word| kind.contains(word))),
                Some(_) => None,
            };
        } else if inside == Some(true) {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The name of the public function that the line begins to define.
fn public_function(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().strip_prefix("pub ")?.split_once("fn ")?;
    let only_qualified = before.split_whitespace().all(|word| matches!(word, "const" | "unsafe" | "extern" | "\"C\""));
    only_qualified.then(|| after.split(|c: char| !is_of_name(c)).next()).flatten()
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the item below these lines is left out of the documentation.
fn is_hidden(above: &[&str]) -> bool {
    let mut attributes = above.iter().rev().map(|line| line.trim_start());
    attributes
        .by_ref()
        .take_while(|line| line.starts_with("#[") || line.starts_with("///"))
        .any(|l| l == "#[doc(hidden)]")
}

/// Whether the function is called there, or passed on by its path.
fn is_used(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let is_whole = !before.ends_with(is_of_name) && !after.starts_with(is_of_name);
        is_whole && (after.starts_with('(') || after.starts_with("::<") || before.ends_with("::"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_example(text: &str) -> Vec<String> {
        let file = File { path: "crates/isa/src/a.rs".to_owned(), text: text.to_owned() };
        check(&file).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_public_function_without_example_is_found() {
        let found = without_example("/// Makes one.\npub const unsafe fn make() {}");
        assert_eq!(found, ["crates/isa/src/a.rs:2: make is public and in no example of this file"]);
    }

    #[test]
    fn an_example_on_the_type_is_one() {
        assert!(without_example("/// ```\n/// A::make();\n/// ```\nstruct A;\npub fn make() {}").is_empty());
        assert!(without_example("//! ```no_run\n//! a.map(A::make)\n//! ```\npub fn make() {}").is_empty());
    }

    #[test]
    fn another_name_that_ends_alike_is_none() {
        assert_eq!(without_example("/// ```\n/// remake(); a.make; make_it();\n/// ```\npub fn make() {}").len(), 1);
    }

    #[test]
    fn what_is_not_compiled_is_no_example() {
        assert_eq!(without_example("/// ```text\n/// make()\n/// ```\npub fn make() {}").len(), 1);
        assert_eq!(without_example("/// `make()`\npub fn make() {}").len(), 1);
        assert_eq!(without_example("fn a() { make(); }\npub fn make() {}").len(), 1);
    }

    #[test]
    fn what_nobody_outside_calls_needs_none() {
        assert!(without_example("pub(crate) fn make() {}\n#[doc(hidden)]\n#[inline]\npub fn makes() {}").is_empty());
    }
}
