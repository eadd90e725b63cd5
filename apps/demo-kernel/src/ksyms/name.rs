//! Rust's paths.

/// The last part of a path: `sys_open` of `demo_kernel::fs::sys_open`, `fmt` of `<A as core::fmt::Debug>::fmt`,
/// `f` of `m::f::<u8>`.
pub(crate) fn last_segment(path: &str) -> &str {
    let path = without_arguments(path);
    let bytes = path.as_bytes();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            // The arrow of a function's type closes nothing.
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => start = at + 1,
            _ => {}
        }
    }
    &path[start..]
}

/// Without generic arguments at the end.
fn without_arguments(path: &str) -> &str {
    let (mut depth, bytes) = (0_usize, path.as_bytes());
    if !path.ends_with('>') {
        return path;
    }
    for (at, byte) in bytes.iter().enumerate().rev() {
        match byte {
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' => depth += 1,
            b'<' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if at > 0 { path[..at].trim_end_matches(':') } else { path };
        }
    }
    path
}
