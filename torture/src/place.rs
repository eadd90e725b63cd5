//! A folder to work in: programs, definitions, what programs have written.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The folder; it goes with this, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    /// `keep`, or a temporary one.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub(crate) fn new(keep: Option<&Path>) -> Result<Self> {
        if let Some(path) = keep {
            std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
            return Ok(Self { path: path.canonicalize()?, _temporary: None });
        }
        let temporary = TempDir::with_prefix("torture-").context("a temporary folder")?;
        Ok(Self { path: temporary.path().canonicalize()?, _temporary: Some(temporary) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An empty folder in it.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn empty(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
