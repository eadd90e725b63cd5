//! Real programs, with something to do that always gives the same.
//!
//! Little to do: with a probe on each instruction, each instruction is a hit.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::Stage;
use crate::programs;

/// A program and what it does.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) input: Vec<u8>,
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// Files in the folder that it runs in.
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
}

impl Workload {
    fn new(name: &str, program: PathBuf, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            program,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            input: Vec::new(),
            environment: &[("LC_ALL", "C"), ("TZ", "UTC"), ("PYTHONHASHSEED", "0")],
            files: vec![("text", text())],
        }
    }

    /// As a command line.
    pub(super) fn words(&self) -> Vec<OsString> {
        std::iter::once(self.program.clone().into_os_string())
            .chain(self.arguments.iter().map(OsString::from))
            .collect()
    }
}

/// Text that can be compressed, and not too well.
fn text() -> Vec<u8> {
    let mut random = testkit::generate::Random::new(1);
    let words = ["probe", "slot", "jump", "trap", "window", "boundary", "detour", "\n"];
    let mut text = String::new();
    while text.len() < 3000 {
        text += words[random.below(8) as usize];
        text.push(if random.one_in(5) { (b'0' + random.below(10) as u8) as char } else { ' ' });
    }
    text.into_bytes()
}

const SQL: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL); BEGIN;
INSERT INTO t VALUES(1,'one',1.5),(2,'two',2.25),(3,'three',-3.125); COMMIT; CREATE INDEX i ON t(b);
UPDATE t SET c = c * 2 WHERE b LIKE 't%'; SELECT a, upper(b), round(c, 1) FROM t ORDER BY b DESC;
SELECT count(*), sum(c), group_concat(b) FROM t; DELETE FROM t WHERE a = 2; SELECT * FROM missing;
";

const PYTHON: &str = "
import _sre
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
class E(Exception): pass
try: raise E('x')
except E as e: print(repr(e))
print(fib(9), 2**200, 1/3, sorted({'b': 1, 'a': 2}.items()), '%08.3f' % 3.14159, 'ä'.encode())
print([x * y for x in range(4) for y in range(4)], sum(len(w) for w in open('text').read().split()))
";

/// All of them; why one is not here.
///
/// # Errors
///
/// If one cannot be built though its compiler is there.
pub(super) fn all(stage: &Stage) -> Result<Vec<Result<Workload, String>>> {
    let key = ["-K", "00112233445566778899aabbccddeeff", "-iv", "000102030405060708090a0b0c0d0e0f"];
    let cipher = [&["enc", "-aes-128-cbc", "-in", "text", "-out", "secret"][..], &key].concat();
    let of = |name: &str, arguments: &[&str]| programs::find(name).map(|path| Workload::new(name, path, arguments));
    let sqlite = of("sqlite3", &["-batch", "base"]).map(|w| Workload { input: SQL.into(), ..w });
    let built = |source: &str, options: &[&str], name: &str, arguments: &[&str]| -> Result<_> {
        Ok(programs::build_test(stage, source, options)?.map(|path| Workload::new(name, path, arguments)))
    };
    Ok(vec![
        // Neither times nor sizes of folders.
        of("ls", &["-lAnR", "--time-style=+", ".", "missing"]),
        of("gzip", &["-9", "-n", "-k", "text"]),
        sqlite,
        of("openssl", &cipher),
        of("python3", &["-I", "-S", "-E", "-c", PYTHON]),
        built("throws.cpp", &[], "c++", &["nested"])?,
        built("panics.rs", &[], "rust", &["nested"])?,
        built("victim.go", &[], "go", &["growth", "20"])?,
    ])
}

/// A program whose output depends on each of its instructions; with `wrong`, in a copy one byte of its sum is that.
///
/// # Errors
///
/// As for all.
pub(super) fn checksum(stage: &Stage, name: &str, wrong: Option<u8>) -> Result<Result<Workload, String>> {
    let built = programs::build(stage, "checksum.c", name, &[])?;
    let Ok(path) = built else { return Ok(built.map(|path| Workload::new(name, path, &[]))) };
    if let Some(byte) = wrong {
        let mut image = std::fs::read(&path)?;
        // `addl $0x5eed5eed, %eax`, whose opcode becomes another: 05 is add, 2d would be sub; 2b and CC are neither.
        let pattern = [0x05, 0xED, 0x5E, 0xED, 0x5E];
        if let Some(at) = image.windows(5).position(|bytes| bytes == pattern) {
            image[at] = if byte == 0xCC { 0xCC } else { byte + 2 };
        }
        std::fs::write(&path, image)?;
    }
    Ok(Ok(Workload::new(name, path, &[])))
}
