//! Digests that the server finds, so that the content need not come back.

use md5::Md5;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::session::SessionError;
use super::spot::Spot;
use crate::location::copy;
use crate::location::{Digest, DigestKind, LocationError, Op, Reason, Result};

/// More than a digest and a name ever take.
const MAX_OUTPUT: usize = 16 * 1024;

/// A program that hashes its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tool {
    kind: DigestKind,
    command: &'static str,
    name: &'static str,
}

const TOOLS: [Tool; 3] = [
    Tool { kind: DigestKind::Sha256, command: "sha256sum", name: "sha256sum" },
    Tool { kind: DigestKind::Sha256, command: "shasum -a 256", name: "shasum" },
    Tool { kind: DigestKind::Md5, command: "md5sum", name: "md5sum" },
];

/// What a server was found to have, asked once.
#[derive(Debug, Default)]
pub(super) struct Tools {
    best: OnceCell<Option<Tool>>,
}

/// The digest by the first of `kinds` that the server can do.
pub(super) async fn find(spot: &Spot<'_>, kinds: &[DigestKind]) -> Result<Option<Digest>> {
    let Some(digest) = found(spot, kinds).await? else { return Ok(None) };
    // A tool that did not read the file has the digest of nothing.
    if digest.bytes == of_nothing(digest.kind) && spot.stat().await?.is_none_or(|now| now.size > 0)
    {
        tracing::warn!("{}: {} does not read files", spot.sftp.name(), digest.by);
        return Ok(None);
    }
    Ok(Some(digest))
}

async fn found(spot: &Spot<'_>, kinds: &[DigestKind]) -> Result<Option<Digest>> {
    if spot.sftp.inner.can.check_file
        && let Some(digest) = by_check_file(spot, kinds).await?
    {
        return Ok(Some(digest));
    }
    match by_tool(spot, kinds).await {
        // The session may live while commands are refused for now; the content can be read. What
        // the server has is asked again the next time.
        Err(error) if error.reason != Reason::Lost => Ok(None),
        found => found,
    }
}

async fn by_tool(spot: &Spot<'_>, kinds: &[DigestKind]) -> Result<Option<Digest>> {
    let Some(tool) = tool(spot).await?.filter(|tool| kinds.contains(&tool.kind)) else {
        return Ok(None);
    };
    let command = [tool.command.as_bytes(), b" < ", &quoted(&spot.full)].concat();
    Ok(run(spot, &command, tool).await?.map(|bytes| Digest {
        kind: tool.kind,
        bytes,
        by: tool.name,
    }))
}

async fn by_check_file(spot: &Spot<'_>, kinds: &[DigestKind]) -> Result<Option<Digest>> {
    let names: Vec<&str> = kinds.iter().map(|kind| name_of(*kind)).collect();
    let names = names.join(",");
    let found = match spot.session().check_file(&spot.full, names.as_bytes(), (0, 0), 0).await {
        // It was announced and does not work, or knows none of these.
        Err(SessionError::Status(_) | SessionError::Unsupported(_)) => return Ok(None),
        found => spot.told(Op::Hash, found).await?,
    };
    let kind = kinds.iter().find(|kind| name_of(**kind).as_bytes() == &found.algorithm[..]);
    Ok(kind.filter(|kind| found.digests.len() == length_of(**kind)).map(|kind| Digest {
        kind: *kind,
        bytes: found.digests.to_vec(),
        by: "check-file",
    }))
}

/// The best program that the account's shell has. It must know the digest of bytes that nobody can
/// have known before, so that neither a login script that prints nor a shell that pretends is
/// believed.
async fn tool(spot: &Spot<'_>) -> Result<Option<Tool>> {
    let best = spot.sftp.inner.tools.best.get_or_try_init(|| async {
        let probe = copy::probe_name().to_string();
        for tool in TOOLS {
            let command = format!("printf {probe} | {}", tool.command);
            match run(spot, command.as_bytes(), tool).await? {
                Some(bytes) if bytes == digest_of(tool.kind, probe.as_bytes()) => {
                    return Ok::<_, LocationError>(Some(tool));
                }
                _ => {}
            }
        }
        Ok(None)
    });
    best.await.copied()
}

fn digest_of(kind: DigestKind, content: &[u8]) -> Vec<u8> {
    match kind {
        DigestKind::Sha256 => Sha256::digest(content).to_vec(),
        DigestKind::Md5 => Md5::digest(content).to_vec(),
    }
}

fn of_nothing(kind: DigestKind) -> Vec<u8> {
    digest_of(kind, b"")
}

async fn run(spot: &Spot<'_>, command: &[u8], tool: Tool) -> Result<Option<Vec<u8>>> {
    let connection = spot.lease.connection();
    if !connection.has_exec() {
        return Ok(None);
    }
    match connection.exec(command, MAX_OUTPUT).await {
        Ok(output) if output.status == Some(0) => Ok(digest_in(&output.stdout, tool.kind)),
        Ok(_) => Ok(None),
        Err(error) if error.is_transient() => Err(error),
        Err(_) => Ok(None),
    }
}

/// The digest that the last line begins with.
fn digest_in(output: &[u8], kind: DigestKind) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(output).ok()?;
    let word = text.lines().rfind(|line| !line.trim().is_empty())?.split_whitespace().next()?;
    unhex(word).filter(|bytes| bytes.len() == length_of(kind))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

/// One word to a POSIX shell, whatever bytes it has.
fn quoted(path: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in path {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

fn name_of(kind: DigestKind) -> &'static str {
    match kind {
        DigestKind::Sha256 => "sha256",
        DigestKind::Md5 => "md5",
    }
}

fn length_of(kind: DigestKind) -> usize {
    match kind {
        DigestKind::Sha256 => 32,
        DigestKind::Md5 => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s09_a_name_is_one_word_to_a_shell() {
        assert_eq!(quoted(b"/a b;$(rm)'\n\xff`"), b"'/a b;$(rm)'\\''\n\xff`'");
    }

    const MD5_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";
    const SHA256_OF_NOTHING: &str =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_known() {
        assert_eq!(Some(of_nothing(DigestKind::Md5)), unhex(MD5_OF_NOTHING));
        assert_eq!(Some(of_nothing(DigestKind::Sha256)), unhex(SHA256_OF_NOTHING));
    }

    #[test]
    fn only_a_digest_is_taken_for_one() {
        let md5 = |text: &str| digest_in(text.as_bytes(), DigestKind::Md5);
        assert_eq!(md5(&format!("welcome\n{MD5_OF_NOTHING}  -\n\n")), unhex(MD5_OF_NOTHING));
        for wrong in
            ["", "welcome", "d41d8cd9  -", SHA256_OF_NOTHING, "é41d8cd98f00b204e9800998ecf8427e"]
        {
            assert_eq!(md5(wrong), None, "{wrong}");
        }
    }
}
