//! fcpd, built so that `FCP_FAULT` counts, fails or kills at its file-system operations.

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = fcpd::main_impl();
    fcp_common::fs::fault::report();
    code
}
