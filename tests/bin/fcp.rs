//! fcp, built so that `FCP_FAULT` counts, fails or kills at its file-system operations.

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = fcp_client::main_impl(std::env::args_os());
    fcp_common::fs::fault::report();
    code
}
