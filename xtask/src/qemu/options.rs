//! How a machine is wanted, and the verb's command line.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Modules;

pub(super) const USAGE: &str = "\
usage: cargo xtask qemu [OPTION…]

Builds the demo kernel and boots it. Without a script, the terminal is its console.

  --script FILE      type the file's lines, one after each prompt; the exit status is the kernel's
  --smp N            processors (2)
  --icount           one processor that counts instructions: the same run every time
  --timeout SECONDS  with a script, give up after so long (60)
  --append WORDS     the kernel's command line
  --modules DIR      take the probe modules (*.ko) that lie there, instead of building the repository's
  --closure          boot nothing: check that what a trap runs lies in .kprobes.text";

/// More would be accepted by QEMU, but not by two cores that emulate them.
const MOST_PROCESSORS: u32 = 64;

/// How a machine is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// How many processors.
    pub(crate) processors: u32,
    /// One processor whose clock is the number of instructions executed, so that runs are repeatable.
    pub(crate) icount: bool,
    /// When a scripted run is given up.
    pub(crate) timeout: Duration,
    /// The kernel's command line.
    pub(crate) append: String,
    /// The probe modules on the RAM disk.
    pub(crate) modules: Modules,
    /// The output is copied to standard output while it comes.
    pub(crate) show: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            processors: 2,
            icount: false,
            timeout: Duration::from_secs(60),
            append: String::new(),
            modules: Modules::Built,
            show: true,
        }
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Help,
    Closure,
    Interactive(Options),
    Script(String, Options),
}

/// Reads the verb's arguments.
///
/// # Errors
///
/// If there is one that is not understood.
pub(super) fn parse(arguments: &[&str]) -> Result<Verb> {
    let mut options = Options::default();
    let (mut script, mut closure, mut timeout) = (None, false, None);
    let mut rest = arguments.iter().copied();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match argument {
            "--help" | "-h" => return Ok(Verb::Help),
            "--closure" => closure = true,
            "--icount" => options.icount = true,
            "--script" => script = Some(value()?.to_owned()),
            "--smp" => options.processors = processors(value()?)?,
            "--timeout" => timeout = Some(seconds(value()?)?),
            "--modules" => options.modules = Modules::Folder(value()?.into()),
            "--append" => value()?.clone_into(&mut options.append),
            _ => bail!("unknown argument {argument}\n{USAGE}"),
        }
    }
    options.timeout = timeout.unwrap_or(options.timeout);
    match (closure, script) {
        (true, None) => Ok(Verb::Closure),
        (true, Some(_)) => bail!("--closure boots nothing that could run a script"),
        (false, Some(file)) => Ok(Verb::Script(file, options)),
        (false, None) if timeout.is_some() => bail!("--timeout goes with --script: a console waits for its user"),
        (false, None) => Ok(Verb::Interactive(options)),
    }
}

fn processors(text: &str) -> Result<u32> {
    let number = text.parse().ok().filter(|number| (1..=MOST_PROCESSORS).contains(number));
    number.with_context(|| format!("--smp takes 1 to {MOST_PROCESSORS}, not {text}"))
}

fn seconds(text: &str) -> Result<Duration> {
    let number: Option<u32> = text.parse().ok().filter(|number| *number > 0);
    number
        .map(|number| Duration::from_secs(number.into()))
        .with_context(|| format!("--timeout takes whole seconds, not {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_arguments_the_terminal_is_the_console() {
        assert_eq!(parse(&[]).unwrap(), Verb::Interactive(Options::default()));
    }

    #[test]
    fn a_script_is_run_with_what_was_asked_for() {
        let verb =
            parse(&["--script", "f", "--smp", "4", "--timeout", "5", "--append", "a b", "--icount", "--modules", "d"])
                .unwrap();
        let options = Options {
            processors: 4,
            icount: true,
            timeout: Duration::from_secs(5),
            append: "a b".to_owned(),
            modules: Modules::Folder("d".into()),
            ..Options::default()
        };
        assert_eq!(verb, Verb::Script("f".to_owned(), options));
    }

    #[test]
    fn bad_values_are_named() {
        for (arguments, named) in [
            (&["--smp", "0"] as &[&str], "--smp takes 1 to 64, not 0"),
            (&["--smp", "many"], "not many"),
            (&["--smp"], "--smp needs a value"),
            (&["--timeout", "0", "--script", "f"], "not 0"),
            (&["--timeout", "5"], "goes with --script"),
            (&["--closure", "--script", "f"], "--closure boots nothing"),
            (&["--fast"], "unknown argument --fast"),
        ] {
            let message = parse(arguments).unwrap_err().to_string();
            assert!(message.contains(named), "{arguments:?}: {message}");
        }
    }
}
