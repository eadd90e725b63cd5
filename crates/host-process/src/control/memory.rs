//! The target's memory, read and written from outside.
//!
//! `/proc/PID/mem` writes through page protections into a private copy of the page, so text stays r-x all the time. The
//! descriptor belongs to the address space that the process had when it was opened: after `exec` it leads nowhere, so
//! a program that has taken the old one's place is never patched by mistake.

use super::{HostError, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// An open address space.
#[derive(Debug)]
pub(crate) struct Memory {
    pid: i32,
    file: File,
}

impl Memory {
    pub(crate) fn open(pid: i32) -> Result<Self> {
        let path = super::process::folder(pid).join("mem");
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HostError::NoProcess { pid },
            io::ErrorKind::PermissionDenied => super::process::denial(pid),
            _ => HostError::io(format!("open the memory of process {pid}"), error),
        })?;
        Ok(Self { pid, file })
    }

    pub(crate) fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, address).map_err(|e| self.failed("read", address, e))
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, address).map_err(|e| self.failed("write", address, e))
    }

    pub(crate) fn word(&self, address: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn half(&self, address: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn failed(&self, what: &str, address: u64, error: io::Error) -> HostError {
        // An address space without users reads as empty.
        if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::WriteZero {
            return HostError::Gone { pid: self.pid };
        }
        HostError::io(format!("{what} the memory of process {} at {address:#x}", self.pid), error)
    }
}
