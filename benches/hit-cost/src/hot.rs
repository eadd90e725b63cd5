//! The measured program: built, run, and its answer read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSegment, ObjectSymbol};
use tempfile::TempDir;

use crate::cases::{Case, Function};
use crate::samples::Samples;

const SOURCE: &str = include_str!("../programs/hot.c");
/// Calls before each burst that are not timed.
const WARM: u64 = 20;

/// The program.
#[derive(Debug)]
pub(crate) struct Hot {
    folder: TempDir,
    image: Vec<u8>,
    bursts: u32,
    calls: u32,
    cpu: Option<usize>,
}

impl Hot {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// If there is no C compiler, or it fails.
    pub(crate) fn build(bursts: u32, calls: u32, cpu: Option<usize>) -> Result<Self> {
        let folder = TempDir::with_prefix("hit-cost-").context("a temporary folder")?;
        let (source, program) = (folder.path().join("hot.c"), folder.path().join("hot"));
        std::fs::write(&source, SOURCE).context("the program's source")?;
        let flags = ["-O2", "-fPIE", "-pie", &format!("-DWARM={WARM}"), "-o"];
        let output = Command::new("cc").args(flags).args([&program, &source]).output();
        let output = output.context("the measured program is in C; cc cannot be started")?;
        if !output.status.success() {
            bail!("cc: {}", String::from_utf8_lossy(&output.stderr));
        }
        let image = std::fs::read(&program).context("the program")?;
        Ok(Self { folder, image, bursts, calls, cpu })
    }

    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("hot")
    }

    /// A folder for files of one run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command that calls a function whose calls are probed.
    pub(crate) fn command(&self, function: &Function) -> Vec<OsString> {
        self.command_with(function, self.calls)
    }

    fn command_with(&self, function: &Function, calls: u32) -> Vec<OsString> {
        let cpu = self.cpu.map_or_else(|| "-1".to_owned(), |cpu| cpu.to_string());
        let words = [function.symbol.to_owned(), self.bursts.to_string(), calls.to_string(), cpu];
        std::iter::once(self.path().into_os_string()).chain(words.map(OsString::from)).collect()
    }

    /// How often that command calls the function.
    pub(crate) fn expected_hits(&self) -> u64 {
        u64::from(self.bursts) * (u64::from(self.calls) + WARM)
    }

    /// Runs it with nobody looking.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(crate) fn run_alone(&self, case: &Case) -> Result<Samples> {
        let words = self.command_with(case.function, self.calls.saturating_mul(case.function.cheap));
        self.run(&words)
    }

    /// Runs a command of this program's.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(crate) fn run(&self, words: &[OsString]) -> Result<Samples> {
        let (program, arguments) = words.split_first().context("a command has a program")?;
        let output = Command::new(program).args(arguments).output().context("cannot start the measured program")?;
        self.answer(&output)
    }

    /// What it printed: the cost of every burst.
    ///
    /// # Errors
    ///
    /// If it failed, or printed something else.
    pub(crate) fn answer(&self, output: &Output) -> Result<Samples> {
        if !output.status.success() {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let costs = text.lines().map(str::parse).collect::<Result<Vec<f64>, _>>().context("the program's times")?;
        if costs.len() != self.bursts as usize {
            bail!("{} bursts were asked for, {} came", self.bursts, costs.len());
        }
        Ok(Samples { costs, ..Samples::default() })
    }

    /// Where a function stands in the file, as uprobes want it.
    ///
    /// # Errors
    ///
    /// If it has no such symbol.
    pub(crate) fn file_offset(&self, function: &Function) -> Result<u64> {
        let file = object::File::parse(&*self.image).context("the measured program's ELF file")?;
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(function.symbol));
        let address = symbol.with_context(|| format!("no symbol {}", function.symbol))?.address();
        let holds = |start: u64, size: u64| address >= start && address - start < size;
        let segment = file.segments().find(|s| holds(s.address(), s.file_range().1)).context("no segment holds it")?;
        Ok(address - segment.address() + segment.file_range().0)
    }
}
