//! The process under test with a wall clock that jumps and a name server that dies: what the system calls of other processes
//! answer cannot be changed without being root, but the C library of one process can.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Compiled once. The build of the database needs a C compiler too.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/shim.c");
        let done =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).args([source, "-ldl"]).output();
        let done = done.expect("cc, a C compiler, is needed for this test");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (folder, path)
    });
    path
}

/// What the process is told.
pub struct Shim(TempDir);

impl Shim {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// What a command line begins with so that its program is told.
    pub fn wrapper(&self) -> Vec<String> {
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        vec!["env".into(), set("LD_PRELOAD", library()), set("SHIM", self.0.path())]
    }

    fn tell(&self, file: &str, text: &str) {
        // Whole or not at all: it is read at any moment.
        let (draft, file) = (self.0.path().join("draft"), self.0.path().join(file));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, file).unwrap();
    }

    /// Moves the wall clock.
    pub fn clock(&self, seconds: i64) {
        self.tell("clock", &seconds.to_string());
    }

    /// Lets `name`.test be this address, or "hang".
    pub fn name(&self, name: &str, address: &str) {
        self.tell(&format!("{name}.dns"), address);
    }

    /// Lets the look-up of `name`.test fail.
    pub fn forget(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(format!("{name}.dns"))).unwrap();
    }

    /// How many look-ups of such names there were.
    pub fn asked(&self) -> u64 {
        std::fs::metadata(self.0.path().join("asked")).map_or(0, |m| m.len())
    }
}
