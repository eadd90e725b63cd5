//! Other probes: the measured program once more, with many small functions that it never calls, and a definition for
//! each.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::hot::{self, Hot};

/// Programs by the number of their functions.
#[derive(Debug, Default)]
pub(crate) struct Crowds(BTreeMap<u32, Crowd>);

/// A program with many functions.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    /// The program; its name is that of the measured one.
    pub(crate) program: PathBuf,
    /// The definitions of a probe on each of the functions.
    pub(crate) definitions: PathBuf,
}

impl Crowds {
    /// The program with so many functions, built when it is first asked for.
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub(crate) fn of(&mut self, number: u32, hot: &Hot) -> Result<Crowd> {
        if let Some(crowd) = self.0.get(&number) {
            return Ok(crowd.clone());
        }
        let crowd = build(number, hot)?;
        self.0.insert(number, crowd.clone());
        Ok(crowd)
    }
}

fn build(number: u32, hot: &Hot) -> Result<Crowd> {
    let name = format!("crowd-{number}");
    let folder = hot.folder().join(&name);
    std::fs::create_dir_all(&folder).context("a folder")?;
    let source = folder.join("crowd.s");
    std::fs::write(&source, assembly(number)).context("the crowd's source")?;
    hot::link(hot.folder(), &format!("{name}/hot"), &[&source.to_string_lossy()])?;
    let definitions = folder.join("definitions");
    let lines: String = (0..number).map(|n| format!("p:o{n} hot:crowd_{n}\n")).collect();
    std::fs::write(&definitions, lines).context("the crowd's definitions")?;
    Ok(Crowd { program: folder.join("hot"), definitions })
}

/// So many functions like the measured one.
fn assembly(number: u32) -> String {
    let mut text = String::from(".section .note.GNU-stack, \"\", @progbits\n.text\n");
    for n in 0..number {
        let body = "push %rbp\n mov %rsp, %rbp\n lea 1(%rdi), %rax\n pop %rbp\n ret";
        let _ = write!(
            text,
            ".p2align 4\n.type crowd_{n}, @function\ncrowd_{n}:\n {body}\n.size crowd_{n}, . - crowd_{n}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_a_crowd_has_a_symbol_with_a_size() {
        let text = assembly(3);
        let sized = (0..3).filter(|n| text.contains(&format!(".size crowd_{n}, ")));
        assert_eq!(sized.count(), 3);
    }
}
