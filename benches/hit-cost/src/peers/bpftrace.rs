//! `bpftrace`: a map that counts, printed at the end as `@: N`.

use anyhow::{Context, Result};

use super::Lab;
use crate::answer;
use crate::case::{At, Case};
use crate::command::{self, limited};
use crate::samples::Samples;

pub(super) fn measure(case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let probe = if case.at == At::Return { "uretprobe" } else { "uprobe" };
    let program = format!("{probe}:{}:{} {{ @ = count(); }}", lab.hot.path().display(), case.function.symbol);
    let words = std::iter::once(lab.hot.path().display().to_string()).chain(lab.hot.arguments(case));
    let words: Vec<_> = words.collect();
    let output = command::output(limited("bpftrace").args(["-e", &program, "-c", &words.join(" ")]))?;
    let mut samples = answer::of(&output)?;
    samples.hits = Some(count(&String::from_utf8_lossy(&output.stdout)).context("bpftrace printed no count")?);
    Ok(samples)
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("@: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_read_behind_the_programs_output() {
        assert_eq!(count("Attaching 1 probe...\ncalls 3640\nburst 613.839\n\n\n@: 3640\n"), Some(3640));
        assert_eq!(count("Attaching 1 probe...\n"), None);
    }
}
