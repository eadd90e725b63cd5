//! Builds the programs that the tests read.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use symbols::{Function, Lookup, Object};
use tempfile::TempDir;

/// A folder of sources and of what was built from them.
pub(crate) struct Bench(TempDir);

impl Bench {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a writable folder");
        }
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a tool in the folder; none, with a message, if the tool is missing or fails.
    pub(crate) fn run(&self, tool: &str, args: &[&str]) -> Option<Output> {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
        let output = Command::new(tool).args(args).current_dir(self.0.path()).env("GOCACHE", cache).output();
        match output {
            Err(error) => {
                println!("SKIPPED: {tool}: {error}");
                None
            }
            Ok(output) if !output.status.success() => {
                println!("SKIPPED: {tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Ok(output) => Some(output),
        }
    }

    /// Runs a tool that makes the file `name` and reads it.
    pub(crate) fn build(&self, tool: &str, args: &[&str], name: &str) -> Option<Object> {
        self.run(tool, args)?;
        Some(self.read(name))
    }

    pub(crate) fn read(&self, name: &str) -> Object {
        Object::read(&self.path(name)).expect("a linker's output is an object")
    }
}

/// The object that GCC would link for a library's file name.
pub(crate) fn system_object(file: &str) -> Option<Object> {
    let bench = Bench::new(&[]);
    let output = bench.run("gcc", &[&format!("-print-file-name={file}")])?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim());
    if !path.is_absolute() {
        println!("SKIPPED: no {file} here");
        return None;
    }
    Some(Object::read(path).expect("a system's library is an object"))
}

pub(crate) fn found<'a>(object: &'a Object, name: &str) -> &'a Function {
    match object.lookup(name) {
        Lookup::Found(function) => function,
        other => panic!("{name}: {other:?}"),
    }
}

pub(crate) fn ambiguous(object: &Object, name: &str) -> Vec<u64> {
    match object.lookup(name) {
        Lookup::Ambiguous(functions) => functions.iter().map(|f| f.addr).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

pub(crate) fn nearest(object: &Object, name: &str) -> Vec<String> {
    match object.lookup(name) {
        Lookup::NotFound { nearest } => nearest,
        other => panic!("{name}: {other:?}"),
    }
}

pub(crate) const THROWS: &str = r#"
#include <cstdio>
#include <stdexcept>
namespace ns {
__attribute__((noinline)) int f(int x) { if (x > 1) throw std::runtime_error("x"); return x; }
__attribute__((noinline)) int f(long x) { return x * 3; }
template <typename T> __attribute__((noinline)) T g(T x) { return x + 1; }
int counter = 3;
}
int main(int c, char **) {
    try { return printf("%d\n", ns::f(c) + ns::f(long(c)) + ns::g(c)); } catch (std::exception &e) { return ns::counter; }
}
"#;

pub(crate) const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"hi\"); return 0; }\n";

pub(crate) const GO: &str = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hi\") }\n";

pub(crate) const PANICS: &str = "fn main() { let r = std::panic::catch_unwind(|| if std::env::args().count() > 0 { panic!(\"x\") }); std::process::exit(r.is_err() as i32) }\n";
