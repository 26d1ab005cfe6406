//! The file of the tokens that clients may come with: `tokens.json` in the directory of settings.

use std::path::{Path, PathBuf};

use fcp_common::auth::Verifier;
use fcp_common::private::{self, PrivateError, Rule, shown};
use fcp_proto::auth::check_token_name;
use fcp_proto::escape_text;
use serde::{Deserialize, Serialize};

use super::expiry::Time;

const NAME: &str = "tokens.json";
/// Thousands of tokens; a longer file is none of ours.
const MAX: u64 = 1 << 20;
/// The format of the file.
const VERSION: u32 = 1;

/// A token that a client may come with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is called; see [`check_token_name`].
    pub name: String,
    /// What checks a proof of it.
    #[serde(with = "as_text")]
    pub verifier: Verifier,
    /// The directory below which its holder is; absolute.
    pub root: PathBuf,
    /// Its holder may change nothing.
    pub read_only: bool,
    /// When it was made.
    pub created: Time,
    /// When it ends to be good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

impl Entry {
    /// Whether it is good no longer.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    tokens: Vec<Entry>,
}

/// What every version of the file has.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// Why the tokens cannot be read or changed. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its directory cannot be used.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// The file is not what we write.
    #[error("{} is damaged: {why}", shown(.path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        why: String,
    },
    /// The name is taken.
    #[error("there is a token '{0}' already; revoke it first, or choose another name")]
    Exists(String),
    /// There is no such token.
    #[error("there is no token '{0}'; see 'fcpd token list'")]
    Unknown(String),
    /// The file would be too long.
    #[error("there are too many tokens; revoke some")]
    Full,
}

/// The file, wherever it is; nothing of it is kept in memory.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in the directory of settings `dir`, which need not exist.
    pub fn in_dir(dir: &Path) -> Store {
        Store { dir: dir.to_owned() }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// All tokens, expired ones too; none when there is no file.
    ///
    /// # Errors
    /// The file is damaged, or others can read or write it.
    pub fn read(&self) -> Result<Vec<Entry>, StoreError> {
        let path = self.path();
        let Some(found) = private::read(&path, &Rule::secret(MAX))? else {
            return Ok(Vec::new());
        };
        parse(&found.bytes).map_err(|why| StoreError::Damaged { path, why })
    }

    /// Adds a token.
    ///
    /// # Errors
    /// There is one of this name, or the file cannot be read or written; nothing has changed.
    pub fn add(&self, entry: Entry) -> Result<(), StoreError> {
        let lock = private::lock(&self.dir)?;
        let mut tokens = self.read()?;
        if tokens.iter().any(|token| token.name == entry.name) {
            return Err(StoreError::Exists(entry.name));
        }
        tokens.push(entry);
        write(&lock, tokens)
    }

    /// Takes a token out; running servers end its sessions.
    ///
    /// # Errors
    /// There is none of this name, or the file cannot be read or written; nothing has changed.
    pub fn revoke(&self, name: &str) -> Result<(), StoreError> {
        let lock = private::lock(&self.dir)?;
        let mut tokens = self.read()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(StoreError::Unknown(escape_text(name)));
        }
        write(&lock, tokens)
    }
}

fn write(lock: &private::Locked, tokens: Vec<Entry>) -> Result<(), StoreError> {
    // Text, numbers and paths that were text: nothing that JSON cannot hold.
    let mut bytes = serde_json::to_vec_pretty(&Contents { version: VERSION, tokens })
        .map_err(|_| StoreError::Full)?;
    bytes.push(b'\n');
    if bytes.len() as u64 > MAX {
        return Err(StoreError::Full);
    }
    Ok(lock.replace(NAME, &bytes)?)
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let broken = |error: serde_json::Error| escape_text(&error.to_string());
    let AnyVersion { version } = serde_json::from_slice(bytes).map_err(broken)?;
    if version != VERSION {
        return Err(format!("its format is {version}, and this fcpd knows {VERSION} only"));
    }
    let Contents { tokens, .. } = serde_json::from_slice(bytes).map_err(broken)?;
    let mut names = std::collections::HashSet::new();
    for token in &tokens {
        if check_token_name(token.name.as_bytes()).is_err() {
            return Err(format!("a token cannot be called '{}'", escape_text(&token.name)));
        }
        if !names.insert(token.name.as_str()) {
            return Err(format!("token '{}' is there twice", token.name));
        }
        if !token.root.is_absolute() {
            return Err(format!("the root of token '{}' is not an absolute path", token.name));
        }
    }
    Ok(tokens)
}

/// A verifier as the text that it has for files.
mod as_text {
    use fcp_common::auth::Verifier;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(it: &Verifier, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&it.to_text())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Verifier, D::Error> {
        let text = String::deserialize(d)?;
        // Without the text: it is nobody's business.
        Verifier::from_text(&text).ok_or_else(|| D::Error::custom("a verifier that is none"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use fcp_common::auth::Token;

    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            verifier: Token::from_random([7; 32]).verifier(),
            root: "/srv".into(),
            read_only: false,
            created: Time(0),
            expires: Some(Time(10)),
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_dir(&dir.path().join("fcp"));
        (dir, store)
    }

    fn put(store: &Store, text: &str) {
        fs::create_dir_all(&store.dir).unwrap();
        fs::write(store.path(), text).unwrap();
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn tokens_are_added_read_and_revoked() {
        let (_dir, store) = store();
        assert_eq!(store.read().unwrap(), []);
        assert!(matches!(store.revoke("a"), Err(StoreError::Unknown(_))));
        store.add(entry("a")).unwrap();
        store.add(Entry { expires: None, read_only: true, ..entry("b") }).unwrap();
        assert!(matches!(store.add(entry("a")), Err(StoreError::Exists(_))));
        assert_eq!(store.read().unwrap()[0], entry("a"));
        store.revoke("a").unwrap();
        let names: Vec<_> = store.read().unwrap().into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn the_token_itself_is_not_kept() {
        let (_dir, store) = store();
        store.add(entry("a")).unwrap();
        let text = fs::read_to_string(store.path()).unwrap();
        assert!(!text.contains(&"07".repeat(32)) && !text.contains("fcp-token"), "{text}");
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let (_dir, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..10 {
                        store.add(entry(&format!("t{thread}.{n}"))).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.read().unwrap().len(), 40);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let (_dir, store) = store();
        store.add(entry("a")).unwrap();
        let good = fs::read_to_string(store.path()).unwrap();
        let twice = good.replace(
            "\"tokens\": [",
            "\"tokens\": [{\"name\": \"a\", \"verifier\": \
            \"VVV\", \"root\": \"/\", \"read_only\": true, \"created\": \"2026-01-01\"},",
        );
        let twice = twice.replace("VVV", &entry("a").verifier.to_text());
        for bad in [
            String::new(),
            "{}".to_owned(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace("read_only", "readonly"),
            good.replace("\"name\"", "\"extra\": 1, \"name\""),
            good.replace("\"a\"", "\"-a\""),
            good.replace("\"/srv\"", "\"srv\""),
            good.replace("\"verifier\": \"", "\"verifier\": \"0"),
            good.replace("1970-01-01T00:00:10Z", "soon"),
            twice,
        ] {
            put(&store, &bad);
            let text = store.add(entry("b")).unwrap_err().to_string();
            assert!(text.contains("tokens.json") && text.contains("damaged"), "{text}");
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(fs::read_to_string(store.path()).unwrap(), bad);
        }
        put(&store, &good);
        assert_eq!(store.read().unwrap(), [entry("a")]);
    }

    #[test]
    fn a22_a_loose_store_is_neither_read_nor_changed() {
        let (_dir, store) = store();
        store.add(entry("a")).unwrap();
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o644)).unwrap();
        for refused in [store.read().err(), store.add(entry("b")).err(), store.revoke("a").err()] {
            assert!(refused.unwrap().to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn a_file_cannot_grow_without_end() {
        let (_dir, store) = store();
        let long = Entry { root: format!("/{}", "x".repeat(MAX as usize)).into(), ..entry("a") };
        assert!(matches!(store.add(long), Err(StoreError::Full)));
        assert_eq!(store.read().unwrap(), []);
    }
}
