//! Where a base directory is at the server.

use super::error::{is_not_found, told};
use super::session::{self, Session, SessionError};
use super::wire::{Attrs, extension};
use crate::location::{LocationError, Op, Reason, Result};

/// The absolute path of the directory that somebody typed, without a slash at its end (`/` alone is
/// empty). What is absolute stays as it was typed, drive letters and all.
pub(super) async fn resolve(
    session: &Session,
    place: &str,
    typed: &[u8],
    make: bool,
) -> Result<Vec<u8>> {
    let failed = |error: &SessionError| told(place, Op::Open, typed, error);
    let mut base = absolute(session, typed).await.map_err(|error| failed(&error))?;
    while base.last() == Some(&b'/') {
        base.pop();
    }
    let asked = if base.is_empty() { b"/" } else { &base[..] };
    match session.stat(asked).await {
        Ok(attrs) if attrs.is_dir() != Some(false) => Ok(base),
        Ok(_) => {
            let text = "it is not a directory";
            Err(LocationError::new(place, Op::Open, typed, Reason::NotDirectory, text))
        }
        Err(error) if make && is_not_found(&error) => {
            make_all(session, &base).await.map_err(|error| failed(&error))?;
            Ok(base)
        }
        Err(error) => Err(failed(&error)),
    }
}

async fn absolute(session: &Session, typed: &[u8]) -> session::Result<Vec<u8>> {
    if typed.starts_with(b"/") {
        return Ok(typed.to_vec());
    }
    let typed = if typed.is_empty() { b"." } else { typed };
    let Some(below) = typed.strip_prefix(b"~") else {
        return relative(session, typed).await;
    };
    if session.extensions().has(extension::EXPAND_PATH) {
        return session.expand_path(typed).await.map(|path| path.to_vec());
    }
    match below {
        b"" | b"/" => relative(session, b".").await,
        [b'/', rest @ ..] => relative(session, rest).await,
        _ => {
            Err(SessionError::Unsupported("the server does not tell where another account begins"))
        }
    }
}

/// From where the account begins. Some servers cannot tell the path of what is not there.
async fn relative(session: &Session, typed: &[u8]) -> session::Result<Vec<u8>> {
    match session.real_path(typed).await {
        Err(error) if is_not_found(&error) => {
            let home = session.real_path(b".").await?;
            Ok([&home[..], b"/", typed].concat())
        }
        done => done.map(|path| path.to_vec()),
    }
}

async fn make_all(session: &Session, base: &[u8]) -> session::Result<()> {
    let ends = (1..base.len()).filter(|at| base[*at] == b'/').chain([base.len()]);
    let mut last = Ok(());
    for end in ends {
        last = session.make_dir(&base[..end], Attrs::default()).await;
        if last.as_ref().is_err_and(SessionError::is_fatal) {
            return last;
        }
    }
    // Those above may be there already, and be refused for that; the last one must be there.
    match session.stat(base).await {
        Ok(attrs) if attrs.is_dir() == Some(true) => Ok(()),
        _ => last,
    }
}
