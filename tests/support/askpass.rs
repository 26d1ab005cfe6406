//! Answers ssh's prompts and counts them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A program for SSH_ASKPASS that always gives the same answer.
#[derive(Debug)]
pub struct Askpass {
    dir: TempDir,
}

impl Askpass {
    /// One that answers with this text, which must need no quoting in a shell.
    pub fn answering(text: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$1\" >> '{}/asked'\necho '{text}'\n",
            dir.path().display()
        );
        fs::write(dir.path().join("askpass"), script).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path().join("askpass"), executable).unwrap();
        Self { dir }
    }

    /// Makes ssh, below this command, ask here.
    pub fn serve(&self, command: &mut Command) {
        command.env("SSH_ASKPASS", self.program()).env("SSH_ASKPASS_REQUIRE", "force");
        command.env("DISPLAY", ":none");
    }

    /// The prompts so far.
    pub fn prompts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("askpass")
    }
}
