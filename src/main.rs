//! Arguments in, exit code out.

use std::process::ExitCode;

use switchback::cli::{self, Program};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Program)
}
