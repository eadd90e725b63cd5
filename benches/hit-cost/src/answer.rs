//! What the measured program prints: `calls N`, `beside N`, `hits N`, and `burst NS` for each burst.

use std::process::Output;

use anyhow::{Context, Result, bail};

use crate::samples::Samples;

/// What it printed.
///
/// # Errors
///
/// If it failed, or printed no bursts. Lines of others, as tracers print them between, are passed over.
pub(crate) fn of(output: &Output) -> Result<Samples> {
    if !output.status.success() {
        let said = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        let said: Vec<_> = said.iter().filter_map(|text| text.lines().last()).collect();
        bail!("{}: {}", output.status, said.join("; "));
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The same, of a program that has not failed.
///
/// # Errors
///
/// If there are no bursts in it.
pub(crate) fn parse(text: &str) -> Result<Samples> {
    let mut samples = Samples::default();
    for (key, value) in text.lines().filter_map(|line| line.trim().split_once(' ')) {
        match key {
            "calls" => samples.calls = value.parse().context("the number of calls")?,
            "beside" => samples.beside = value.parse().context("the number of other calls")?,
            "hits" => samples.hits = Some(value.parse().context("the number of hits")?),
            "burst" => samples.costs.push(value.parse().context("a burst's cost")?),
            _ => {}
        }
    }
    if samples.costs.is_empty() || samples.calls == 0 {
        bail!("the measured program printed no bursts");
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_hits_and_bursts_are_read_among_others_lines() {
        let samples = parse("Attaching 1 probe...\ncalls 30\nhits 30\nburst 1.5\nburst 2.5\n\n@: 30\n").unwrap();
        assert_eq!((samples.calls, samples.hits, samples.costs), (30, Some(30), vec![1.5, 2.5]));
    }

    #[test]
    fn no_bursts_are_an_error() {
        assert!(parse("calls 30\n").is_err());
    }

    #[test]
    fn a_number_that_is_none_is_an_error() {
        assert!(parse("calls x\nburst 1\n").is_err());
    }
}
