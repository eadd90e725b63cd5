//! The measured program: built, and run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSegment, ObjectSymbol};
use tempfile::TempDir;

use crate::answer;
use crate::case::{Beside, Case, Function, Work};
use crate::cases::SECOND;
use crate::command::{self, limited};
use crate::samples::Samples;

const SOURCES: [(&str, &str); 3] = [
    ("hot.c", include_str!("../programs/hot.c")),
    ("functions.s", include_str!("../programs/functions.s")),
    ("instrumented.c", include_str!("../programs/instrumented.c")),
];
/// Calls in a burst, at most, of what is not recorded.
const MOST: u32 = 1_000_000;

/// The program, and how long it is to run.
#[derive(Clone, Debug)]
pub(crate) struct Hot {
    program: Rc<Program>,
    bursts: u32,
    /// Calls in a burst, at most.
    most: u32,
    /// The same where events are recorded.
    recorded: u32,
    cpu: Option<usize>,
}

#[derive(Debug)]
struct Program {
    folder: TempDir,
    image: Vec<u8>,
}

impl Hot {
    /// Builds it: for bursts, for calls of at most `recorded` in a burst where events are recorded, to stay on `cpu`.
    ///
    /// # Errors
    ///
    /// If there is no C compiler, or it fails.
    pub(crate) fn build(bursts: u32, recorded: u32, cpu: Option<usize>) -> Result<Self> {
        let folder = TempDir::with_prefix("hit-cost-").context("a temporary folder")?;
        for (name, text) in SOURCES {
            std::fs::write(folder.path().join(name), text).context("the program's source")?;
        }
        compile(folder.path(), &["-c", "-finstrument-functions", "-o", "instrumented.o", "instrumented.c"])?;
        compile(folder.path(), &["-c", "-o", "hot.o", "hot.c"])?;
        link(folder.path(), "hot", &[])?;
        let image = std::fs::read(folder.path().join("hot")).context("the program")?;
        Ok(Self { program: Rc::new(Program { folder, image }), bursts, most: MOST, recorded, cpu })
    }

    /// The same program, for so many bursts of so many calls at most, whatever a hit does.
    pub(crate) fn of(&self, bursts: u32, most: u32) -> Self {
        Self { bursts, most, recorded: most, ..self.clone() }
    }

    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder().join("hot")
    }

    /// A folder for files of one run.
    pub(crate) fn folder(&self) -> &Path {
        self.program.folder.path()
    }

    /// The program's arguments for a row.
    pub(crate) fn arguments(&self, case: &Case) -> Vec<String> {
        let most = if matches!(case.work, Work::Record(_)) { self.recorded } else { self.most };
        let cpu = self.cpu.map_or_else(|| "-1".to_owned(), |cpu| cpu.to_string());
        let mut words = vec![case.target(), self.bursts.to_string(), most.to_string(), cpu];
        words.push(format!("name={}", name()));
        if case.beside == Beside::Thread {
            words.push(format!("beside={}", SECOND.symbol));
        }
        words
    }

    /// Runs it with nobody looking.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(crate) fn run_alone(&self, case: &Case) -> Result<Samples> {
        answer::of(&command::output(limited(self.path()).args(self.arguments(case)))?)
    }

    /// Where a function stands in the file, as uprobes want it.
    ///
    /// # Errors
    ///
    /// If it has no such symbol.
    pub(crate) fn file_offset(&self, function: &Function) -> Result<u64> {
        let file = object::File::parse(&*self.program.image).context("the measured program's ELF file")?;
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(function.symbol));
        let address = symbol.with_context(|| format!("no symbol {}", function.symbol))?.address();
        let holds = |start: u64, size: u64| address >= start && address - start < size;
        let segment = file.segments().find(|s| holds(s.address(), s.file_range().1)).context("no segment holds it")?;
        Ok(address - segment.address() + segment.file_range().0)
    }
}

/// What the kernel calls the program: another benchmark may run on this machine.
pub(crate) fn name() -> String {
    format!("hot-{}", std::process::id())
}

/// Links the program, with more objects or sources, to a file in its folder.
///
/// # Errors
///
/// If the compiler fails.
pub(crate) fn link(folder: &Path, output: &str, more: &[&str]) -> Result<()> {
    let arguments = [&["-pie", "-o", output, "hot.o", "functions.s", "instrumented.o"], more].concat();
    compile(folder, &[&arguments[..], &["-lpthread", "-ldl"]].concat())
}

fn compile(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("cc").current_dir(folder).args(["-O2", "-fPIE"]).args(arguments).output();
    let output = output.context("the measured program is in C; cc cannot be started")?;
    if !output.status.success() {
        bail!("cc: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
