//! fcp, the file-transfer client.

use std::process::ExitCode;

fn main() -> ExitCode {
    fcp_client::main_impl(std::env::args_os())
}
