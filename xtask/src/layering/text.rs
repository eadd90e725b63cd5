//! Rust source seen without its comments, and without its strings.

/// A file's lines with comments, and if `strings` is false also literals' contents, taken out; lines keep their numbers.
pub(super) fn code(text: &str, strings: bool) -> Vec<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let (length, kept) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(length) = raw_string(rest) {
            (length, strings)
        } else if next == '"' {
            (string(rest), strings)
        } else if let Some(length) = character(rest) {
            (length, strings)
        } else {
            (next.len_utf8(), true)
        };
        let (token, after) = rest.split_at(length);
        out.extend(token.chars().filter(|c| kept || *c == '\n'));
        rest = after;
    }
    out.lines().map(str::to_owned).collect()
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let open = 1 + hashes + 1;
    body[hashes..].starts_with('"').then_some(())?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(text[open..].find(&close).map_or(text.len(), |at| open + at + close.len()))
}

/// A character literal, as opposed to a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if body.starts_with('\\') {
        return body.char_indices().skip(2).find(|(_, c)| *c == '\'').map(|(at, _)| at + 2);
    }
    let first = body.chars().next()?.len_utf8();
    body[first..].starts_with('\'').then_some(1 + first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_lines_stay() {
        assert_eq!(code("a // x86\n/* ptrace\n/* y */ */b", true), ["a ", "", "b"]);
    }

    #[test]
    fn a_comment_mark_in_a_string_is_none() {
        assert_eq!(code("f(\"// kept\") // gone", true), ["f(\"// kept\") "]);
    }

    #[test]
    fn strings_go_when_asked() {
        assert_eq!(code(r##"f("a\"b", r#"c"d"#, '"', 'x')g"##, false), ["f(, , , )g"]);
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(code("fn f<'a>(x: &'a str) {}", false), ["fn f<'a>(x: &'a str) {}"]);
    }
}
