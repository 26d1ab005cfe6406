//! fcpd.

use std::process::ExitCode;

fn main() -> ExitCode {
    fcpd::main_impl()
}
