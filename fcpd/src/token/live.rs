//! The tokens as a running server sees them: what the file says now, and none when it cannot be
//! trusted.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fcp_common::private::Stamp;

use super::expiry::Time;
use super::store::{Entry, Store};

/// How often the token of a running session is looked at.
const WATCH: Duration = Duration::from_secs(1);

/// The tokens of a running server. Every question sees what the file says by then.
#[derive(Debug)]
pub struct Tokens {
    store: Option<Store>,
    seen: Mutex<Seen>,
}

/// What the file said when it was read.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// `None` when it cannot be used.
    tokens: Option<Arc<[Entry]>>,
}

/// Why a token is refused; for the log, not for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGood {
    /// The file cannot be used; the log says why.
    #[error("the tokens cannot be read")]
    Unreadable,
    /// There is none of this name.
    #[error("there is none of this name")]
    Unknown,
    /// It was good once.
    #[error("it has expired")]
    Expired,
}

impl Tokens {
    /// The tokens in the directory of settings `dir`; none without one.
    pub fn in_dir(dir: Option<&Path>) -> Tokens {
        Tokens { store: dir.map(Store::in_dir), seen: Mutex::default() }
    }

    /// The token called `name`, if it is good `now`.
    ///
    /// # Errors
    /// [`NotGood`].
    pub fn find(&self, name: &str, now: Time) -> Result<Entry, NotGood> {
        let tokens = self.current().ok_or(NotGood::Unreadable)?;
        let found = tokens.iter().find(|token| token.name == name).ok_or(NotGood::Unknown)?;
        if found.is_expired(now) { Err(NotGood::Expired) } else { Ok(found.clone()) }
    }

    /// Whether `token`, which was good once, still is. When the file cannot be read it stays good:
    /// that ends nothing, but begins nothing either.
    pub fn is_good(&self, token: &Entry, now: Time) -> bool {
        let is_there = self.current().is_none_or(|tokens| tokens.contains(token));
        is_there && !token.is_expired(now)
    }

    /// Completes when `token` is revoked or expires.
    pub async fn ended(&self, token: &Entry) {
        while self.is_good(token, Time::now()) {
            tokio::time::sleep(WATCH).await;
        }
    }

    fn current(&self) -> Option<Arc<[Entry]>> {
        let Some(store) = &self.store else { return Some(Arc::default()) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before reading: what changes meanwhile is seen the next time.
        let stamp = Stamp::of(&store.path());
        if stamp.as_ref().is_some_and(|s| s.is_settled(Time::now().0)) && seen.stamp == stamp {
            return seen.tokens.clone();
        }
        let is_news = seen.stamp != stamp || seen.tokens.is_some();
        seen.tokens = match store.read() {
            Ok(tokens) => Some(tokens.into()),
            Err(error) => {
                if is_news {
                    tracing::error!("no token is accepted: {error}");
                }
                None
            }
        };
        seen.stamp = stamp;
        seen.tokens.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use fcp_common::auth::Token;

    use super::*;

    fn entry(name: &str, expires: Option<Time>) -> Entry {
        Entry {
            name: name.to_owned(),
            verifier: Token::from_random([7; 32]).verifier(),
            root: "/srv".into(),
            read_only: false,
            created: Time(0),
            expires,
        }
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_added_and_revoked_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_dir(dir.path());
        let tokens = Tokens::in_dir(Some(dir.path()));
        let find = |name| tokens.find(name, Time(5)).map(|found| found.name);
        assert_eq!(find("a"), Err(NotGood::Unknown));
        store.add(entry("a", None)).unwrap();
        assert_eq!(find("a").as_deref(), Ok("a"));
        store.add(entry("b", Some(Time(5)))).unwrap();
        assert_eq!(find("b"), Err(NotGood::Expired));
        let a = tokens.find("a", Time(5)).unwrap();
        store.revoke("a").unwrap();
        assert_eq!(find("a"), Err(NotGood::Unknown));
        assert!(!tokens.is_good(&a, Time(5)));
    }

    #[test]
    fn another_token_of_the_same_name_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_dir(dir.path());
        let tokens = Tokens::in_dir(Some(dir.path()));
        store.add(entry("a", None)).unwrap();
        let first = tokens.find("a", Time(5)).unwrap();
        store.revoke("a").unwrap();
        let verifier = Token::from_random([8; 32]).verifier();
        store.add(Entry { verifier, ..entry("a", None) }).unwrap();
        assert!(!tokens.is_good(&first, Time(5)));
        assert!(tokens.is_good(&tokens.find("a", Time(5)).unwrap(), Time(5)));
    }

    #[test]
    fn a22_when_others_can_read_the_file_nobody_new_comes_in() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_dir(dir.path());
        let tokens = Tokens::in_dir(Some(dir.path()));
        store.add(entry("a", Some(Time(9)))).unwrap();
        let a = tokens.find("a", Time(5)).unwrap();
        for (path, loose, private) in
            [(store.path(), 0o644, 0o600), (dir.path().into(), 0o777, 0o700)]
        {
            chmod(&path, loose);
            assert_eq!(tokens.find("a", Time(5)), Err(NotGood::Unreadable));
            assert!(tokens.is_good(&a, Time(5)) && !tokens.is_good(&a, Time(9)));
            chmod(&path, private);
            assert_eq!(tokens.find("a", Time(5)), Ok(a.clone()));
        }
    }
}
