//! Against a real sshd with its own keys, and against servers that mean no good.

mod channels;
mod hostile;
mod hosts;
mod logins;
pub(in crate::location::sftp) mod support;
mod system;
mod whole;
