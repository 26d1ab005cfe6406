//! Directories, and what has a name.

use std::collections::HashSet;

use fcp_common::fs::Kind;
use fcp_proto::path::{Name, RelPath};

use super::error;
use super::session::Listed;
use super::spot::{Spot, attrs_of, meta_of};
use super::wire::Attrs;
use crate::location::{Entry, Listing, Op, Reason, Refused, Result, SetMeta};

/// Lists a directory; a symlink to one is none (S18).
pub(super) async fn list(spot: &Spot<'_>) -> Result<Listing> {
    // Both go out together.
    let (opened, stat) = tokio::join!(spot.session().list(&spot.full), spot.stat());
    match stat? {
        None => return Err(spot.fail(Op::List, Reason::NotFound, "there is no such directory")),
        Some(meta) if meta.kind == Kind::Dir => {}
        Some(_) => return Err(spot.fail(Op::List, Reason::NotDirectory, "it is not a directory")),
    }
    let mut reader = spot.told(Op::List, opened).await?;
    let mut listing = Listing::default();
    while let Some(page) = spot.told(Op::List, reader.next_page().await).await? {
        for listed in page {
            add(spot, &mut listing, listed).await?;
        }
    }
    refuse_twins(&mut listing);
    Ok(listing)
}

async fn add(spot: &Spot<'_>, listing: &mut Listing, listed: Listed) -> Result<()> {
    let (name, attrs) = match listed {
        Listed::Entry { name, attrs } => (name, attrs),
        Listed::Refused { name, .. } => {
            let why = "it cannot be the name of a file in a directory";
            listing.refused.push(Refused { name: name.to_vec(), why });
            return Ok(());
        }
    };
    let told = attrs.is_file().is_some().then(|| meta_of(&attrs)).flatten();
    let meta = match told {
        Some(meta) => Some(meta),
        // A server that lists names only is asked about each.
        None => one(spot, &name).await?,
    };
    listing.entries.extend(meta.map(|meta| Entry { name, meta }));
    Ok(())
}

async fn one(spot: &Spot<'_>, name: &Name) -> Result<Option<crate::location::Meta>> {
    let full = [&spot.full[..], b"/", name.as_bytes()].concat();
    match spot.session().lstat(&full).await {
        Ok(attrs) => spot.meta(&attrs).map(Some),
        Err(error) if error::is_not_found(&error) => Ok(None),
        Err(error) => Err(spot.failed(Op::Stat, &error).await),
    }
}

/// S06: two entries of one name cannot both be opened by it.
fn refuse_twins(listing: &mut Listing) {
    let mut seen = HashSet::with_capacity(listing.entries.len());
    let twins: HashSet<Name> = listing
        .entries
        .iter()
        .filter(|entry| !seen.insert(entry.name.as_bytes()))
        .map(|entry| entry.name.clone())
        .collect();
    if twins.is_empty() {
        return;
    }
    listing.entries.retain(|entry| !twins.contains(&entry.name));
    let why = "the server listed it more than once";
    let refused = twins.iter().map(|name| Refused { name: name.as_bytes().to_vec(), why });
    listing.refused.extend(refused);
}

pub(super) async fn remove(spot: &Spot<'_>) -> Result<()> {
    match spot.session().remove(&spot.full).await {
        Err(error) if error::is_vague(&error) && is_dir(spot).await? => {
            Err(spot.fail(Op::Remove, Reason::IsDirectory, "it is a directory"))
        }
        done => spot.told(Op::Remove, done).await,
    }
}

pub(super) async fn remove_dir(spot: &Spot<'_>) -> Result<()> {
    let error = match spot.session().remove_dir(&spot.full).await {
        Err(error) if error::is_vague(&error) => error,
        done => return spot.told(Op::Remove, done).await,
    };
    // Version 3 has no word for that.
    match list(spot).await {
        Ok(listing) if listing.entries.is_empty() && listing.refused.is_empty() => {
            Err(spot.failed(Op::Remove, &error).await)
        }
        Ok(_) => Err(spot.fail(Op::Remove, Reason::NotEmpty, "the directory is not empty")),
        Err(error) => Err(error),
    }
}

pub(super) async fn make_dirs(spot: &Spot<'_>) -> Result<()> {
    // The usual case is that it is there.
    if spot.path.is_root() || is_dir_or_link_to_one(spot, spot.path).await? {
        return Ok(());
    }
    // The next is that only the last one is missing.
    if spot.session().make_dir(&spot.full, Attrs::default()).await.is_ok() {
        return Ok(());
    }
    let mut at = RelPath::root();
    for name in spot.path.components() {
        at = at.join_unbounded(&name);
        if is_dir_or_link_to_one(spot, &at).await? {
            continue;
        }
        match spot.session().make_dir(&spot.sftp.full(&at), Attrs::default()).await {
            // Somebody else may have made it meanwhile.
            Err(error) if error::is_vague(&error) && is_dir_or_link_to_one(spot, &at).await? => {}
            done => spot.told(Op::MakeDir, done).await?,
        }
    }
    Ok(())
}

pub(super) async fn set_meta(spot: &Spot<'_>, meta: SetMeta) -> Result<()> {
    match spot.stat().await? {
        None => return Err(spot.fail(Op::SetMeta, Reason::NotFound, "it is not there")),
        // SETSTAT would follow it.
        Some(now) if now.kind == Kind::Symlink => return set_link_time(spot, meta).await,
        Some(_) => {}
    }
    match attrs_of(meta) {
        Some(attrs) => {
            let done = spot.session().set_stat(&spot.full, attrs).await;
            spot.told(Op::SetMeta, done).await
        }
        None => Ok(()),
    }
}

/// A link has no mode that counts. [`Reason::Unsupported`] where the server only follows it.
async fn set_link_time(spot: &Spot<'_>, meta: SetMeta) -> Result<()> {
    let Some(attrs) = attrs_of(SetMeta { mode: None, ..meta }) else { return Ok(()) };
    let done = spot.session().lset_stat(&spot.full, attrs).await;
    spot.told(Op::SetMeta, done).await
}

async fn is_dir(spot: &Spot<'_>) -> Result<bool> {
    Ok(spot.stat().await?.is_some_and(|meta| meta.kind == Kind::Dir))
}

/// A tree may be spread over disks by symlinks. [`Reason::NotDirectory`] for anything else.
async fn is_dir_or_link_to_one(spot: &Spot<'_>, path: &RelPath) -> Result<bool> {
    match spot.session().stat(&spot.sftp.full(path)).await {
        Ok(attrs) if attrs.is_dir() == Some(false) => {
            Err(spot.fail(Op::MakeDir, Reason::NotDirectory, "a file has the name of a directory"))
        }
        Ok(_) => Ok(true),
        // Below a file, OpenSSH says, is a failure; whoever makes the directory is told.
        Err(error) if error::is_not_found(&error) || error::is_vague(&error) => Ok(false),
        Err(error) => Err(spot.failed(Op::MakeDir, &error).await),
    }
}
