//! An SFTP server with faults in it: see `fcp_tests::sftp_faults`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(folder) => fcp_tests::sftp_faults::main_impl(folder.as_ref()),
        None => ExitCode::FAILURE,
    }
}
