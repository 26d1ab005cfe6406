//! `fcpd token`: making, listing and revoking tokens.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use fcp_common::auth::Token;
use fcp_common::private::shown;
use fcp_proto::auth::check_token_name;
use serde::Serialize;

use super::expiry::Time;
use super::random;
use super::store::{Entry, Store, StoreError};

/// What to do with the tokens that clients come with over TLS.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print it with its name: this is the only time that it is seen
    Add {
        /// What to call it: letters, digits, dots, dashes and underscores
        #[arg(value_parser = name)]
        name: String,
        /// The directory that its holder may use, and nothing outside of it
        #[arg(long, value_name = "PATH")]
        root: PathBuf,
        /// Its holder may read only
        #[arg(long)]
        read_only: bool,
        /// When it ends: a time from now, such as 12h, 30d or 4w, or a date [default: never]
        #[arg(long, value_name = "WHEN", value_parser = expiry)]
        expires: Option<Time>,
    },
    /// Show all tokens, though not what they are
    List {
        /// As JSON, an object on each line
        #[arg(long)]
        json: bool,
    },
    /// Refuse a token from now on, and end the sessions that it has
    Revoke {
        /// What it is called
        name: String,
    },
}

fn name(text: &str) -> Result<String, String> {
    check_token_name(text.as_bytes()).map(|()| text.to_owned()).map_err(|_| {
        "a name has 1 to 64 letters, digits, dots, dashes and underscores, and no dash first"
            .to_owned()
    })
}

fn expiry(text: &str) -> Result<Time, String> {
    Time::expiry(text, Time::now()).map_err(|bad| bad.to_string())
}

/// Does what is asked with the store in the directory of settings `dir`. What scripts want goes to
/// `out`, explanations to `notes`.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub fn run(
    command: TokenCommand,
    dir: &Path,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), String> {
    let store = Store::in_dir(dir);
    match command {
        TokenCommand::Add { name, root, read_only, expires } => {
            let root = directory(&root)?;
            let token = Token::from_random(random().map_err(|e| format!("no random bytes: {e}"))?);
            let verifier = token.verifier();
            let entry = Entry { name, verifier, root, read_only, created: Time::now(), expires };
            add(&store, entry, &token, out, notes)
        }
        TokenCommand::List { json } => list(&store, json, out),
        TokenCommand::Revoke { name } => {
            store.revoke(&name).map_err(text)?;
            // It is done, whether or not anybody reads this.
            let _ = writeln!(notes, "Token '{name}' is refused from now on, its sessions end.");
            Ok(())
        }
    }
}

fn text(error: StoreError) -> String {
    error.to_string()
}

/// The directory without links in it, so that nobody turns it into another one afterwards.
fn directory(root: &Path) -> Result<PathBuf, String> {
    let unusable = |why: String| format!("cannot use --root {}: {why}", shown(root));
    let real = root.canonicalize().map_err(|e| unusable(e.to_string()))?;
    if !real.is_dir() {
        return Err(unusable("it is not a directory".to_owned()));
    }
    if real.to_str().is_none() {
        return Err(unusable("its name is not UTF-8".to_owned()));
    }
    Ok(real)
}

fn add(
    store: &Store,
    entry: Entry,
    token: &Token,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), String> {
    let Entry { name, root, read_only, expires, .. } = entry.clone();
    store.add(entry).map_err(text)?;
    if let Err(error) = writeln!(out, "{name}:{}", token.to_text()).and_then(|()| out.flush()) {
        // Nobody has seen it, so nobody can ever use it.
        let _ = store.revoke(&name);
        return Err(format!("cannot print the token, which was not added: {error}"));
    }
    let may = if read_only { "read" } else { "read and write" };
    let until = expires.map_or_else(|| "it is revoked".to_owned(), |time| time.to_string());
    let _ = writeln!(
        notes,
        "This line is token '{name}', and the only time that it is shown. Until {until} its holder may \
         {may} below {}.\nOn the client put it into a file that only its user can read (chmod 600), \
         and name that with --token-file,\nor as 'token' of this host in ~/.config/fcp/config.toml.",
        shown(&root)
    );
    Ok(())
}

/// What is shown of a token.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    root: &'a Path,
    read_only: bool,
    created: Time,
    expires: Option<Time>,
    expired: bool,
}

fn list(store: &Store, json: bool, out: &mut dyn Write) -> Result<(), String> {
    let now = Time::now();
    let mut lines = String::new();
    for token in store.read().map_err(text)? {
        let expired = token.is_expired(now);
        let Entry { name, root, read_only, created, expires, .. } = &token;
        let (read_only, created, expires) = (*read_only, *created, *expires);
        lines += &if json {
            let shown = Shown { name, root, read_only, created, expires, expired };
            serde_json::to_string(&shown).map_err(|e| format!("cannot show '{name}': {e}"))?
        } else {
            let access = if read_only { "read-only" } else { "read-write" };
            let until = match expires {
                None => "never expires".to_owned(),
                Some(time) if expired => format!("EXPIRED {time}"),
                Some(time) => format!("expires {time}"),
            };
            format!("{name}  {access}  {until}  {}", shown(root))
        };
        lines.push('\n');
    }
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| format!("cannot print the tokens: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Command {
        dir: tempfile::TempDir,
    }

    impl Command {
        fn run(&self, command: TokenCommand) -> Result<(String, String), String> {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            run(command, self.dir.path(), &mut out, &mut notes)?;
            Ok((String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap()))
        }

        fn add(&self, name: &str, root: &Path) -> Result<(String, String), String> {
            let (name, root) = (name.to_owned(), root.to_owned());
            let expires = Some(Time(Time::now().0 + 60));
            self.run(TokenCommand::Add { name, root, read_only: true, expires })
        }
    }

    fn command() -> Command {
        Command { dir: tempfile::tempdir().unwrap() }
    }

    #[test]
    fn a_token_is_alone_on_stdout_and_checks_against_what_is_stored() {
        let command = command();
        let (out, notes) = command.add("laptop", command.dir.path()).unwrap();
        // As clients read it: they have to name the token that they prove.
        let token: Token = out.strip_prefix("laptop:").unwrap().parse().unwrap();
        assert_eq!(out, format!("laptop:{}\n", token.to_text()));
        assert!(notes.contains("--token-file") && !notes.contains(&out), "{notes}");
        let stored = &Store::in_dir(command.dir.path()).read().unwrap()[0];
        assert_eq!(stored.verifier, token.verifier());
        assert_eq!((stored.read_only, &*stored.root), (true, command.dir.path()));
        assert!(command.add("laptop", command.dir.path()).unwrap_err().contains("already"));
    }

    #[test]
    fn the_root_must_be_a_directory_and_is_kept_without_links() {
        let command = command();
        let dir = command.dir.path();
        for bad in [dir.join("missing"), "/dev/null".into()] {
            assert!(command.add("a", &bad).unwrap_err().contains("--root"));
        }
        std::os::unix::fs::symlink(dir, dir.join("link")).unwrap();
        command.add("a", &dir.join("link")).unwrap();
        assert_eq!(Store::in_dir(dir).read().unwrap()[0].root, dir.canonicalize().unwrap());
    }

    #[test]
    fn the_list_shows_what_is_expired_and_no_secret() {
        let command = command();
        let store = Store::in_dir(command.dir.path());
        let verifier = Token::from_random([7; 32]).verifier();
        let entry = |name: &str, expires| Entry {
            name: name.to_owned(),
            verifier: verifier.clone(),
            root: "/srv".into(),
            read_only: false,
            created: Time(0),
            expires,
        };
        store.add(entry("old", Some(Time(10)))).unwrap();
        store.add(entry("new", None)).unwrap();
        let (text, _) = command.run(TokenCommand::List { json: false }).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("old ") && lines[0].contains("EXPIRED"), "{text}");
        assert!(lines[1].starts_with("new ") && !lines[1].contains("EXPIRED"), "{text}");
        let (json, _) = command.run(TokenCommand::List { json: true }).unwrap();
        assert_eq!(
            json.lines().next().unwrap(),
            r#"{"name":"old","root":"/srv","read_only":false,"created":"1970-01-01T00:00:00Z","expires":"1970-01-01T00:00:10Z","expired":true}"#
        );
        assert!(!json.contains(&verifier.to_text()));
    }

    #[test]
    fn a_token_that_nobody_saw_is_not_added() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let command = command();
        let (name, root) = ("a".to_owned(), command.dir.path().to_owned());
        let add = TokenCommand::Add { name, root, read_only: false, expires: None };
        assert!(run(add, command.dir.path(), &mut Full, &mut Vec::new()).is_err());
        assert_eq!(Store::in_dir(command.dir.path()).read().unwrap(), []);
    }
}
