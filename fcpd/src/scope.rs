//! What a connection may touch, and what the paths of its requests mean.
//!
//! Every path of a request goes through `Scope::typed` and is opened through [`Scope::base`].

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use fcp_common::fs::Base;
use fcp_common::select::operand::has_magic;
use fcp_common::transfer::RootMetaRule;
use fcp_proto::packet::WireError;
use fcp_proto::{ErrorCode, escape};
use nix::unistd::User;

/// What a connection may touch; by default all that the kernel lets this process touch.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    base: Base,
    read_only: bool,
}

impl Scope {
    /// Everything beneath the directory `root`, which is opened now and held: `~` and relative and
    /// absolute paths are all below it.
    ///
    /// # Errors
    /// It cannot be opened as a directory.
    pub fn below(root: &Path) -> io::Result<Scope> {
        Ok(Scope { base: Base::beneath(root)?, read_only: false })
    }

    /// The same files, of which none may be changed if `yes`.
    pub fn with_read_only(self, yes: bool) -> Scope {
        Scope { read_only: yes, ..self }
    }

    /// Through what the paths are opened.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// What a push may say of its destination itself: nothing of the root that its owner drew.
    pub(crate) fn root_meta(&self, path: &[u8]) -> RootMetaRule {
        let is_root = path.split(|b| *b == b'/').all(|part| part.is_empty() || part == b".");
        match &self.base {
            Base::Beneath(_) if is_root => RootMetaRule::Ignore,
            _ => RootMetaRule::Take,
        }
    }

    /// Refuses whatever would change a file, and what would only say how.
    pub(crate) fn may_write(&self) -> Result<(), WireError> {
        if self.read_only {
            let text = "this server lets you read only, and not change anything";
            return Err(WireError::new(ErrorCode::READ_ONLY, text));
        }
        Ok(())
    }

    /// What `typed` means: what is relative is below `home`, as is what follows `~/`; what follows
    /// `~name/` is below that user's home.
    ///
    /// # Errors
    /// There is no such user, or none that this scope reaches.
    pub(crate) fn typed<'a>(
        &self,
        home: &Path,
        typed: &'a [u8],
    ) -> Result<TypedPath<'a>, WireError> {
        let (tilde, rest) = split_tilde(typed);
        let spelled = &typed[..typed.len() - rest.len()];
        let start = match tilde {
            Tilde::User(name) => directory(self.home_of(name)?),
            _ if self.base.is_restricted() || typed.starts_with(b"/") => Vec::new(),
            Tilde::Own | Tilde::None => directory(home.as_os_str().as_bytes().to_vec()),
        };
        Ok(TypedPath { spelled, start, rest })
    }

    fn home_of(&self, name: &[u8]) -> Result<Vec<u8>, WireError> {
        let user = match (&self.base, std::str::from_utf8(name)) {
            // A failed look-up is a user that we cannot find, too.
            (Base::Unrestricted, Ok(name)) => User::from_name(name).ok().flatten(),
            _ => None,
        };
        let home = user.map(|user| user.dir.into_os_string().into_vec());
        home.filter(|home| home.starts_with(b"/")).ok_or_else(|| no_user(name))
    }
}

fn no_user(name: &[u8]) -> WireError {
    let name = escape(name);
    let text = format!("there is no user '{name}'; write './~{name}' for a name that begins so");
    WireError::new(ErrorCode::NOT_FOUND, text)
}

fn directory(mut path: Vec<u8>) -> Vec<u8> {
    path.push(b'/');
    path
}

/// How a path begins.
enum Tilde<'a> {
    None,
    Own,
    User(&'a [u8]),
}

/// The home that a path begins with, and the rest behind its slash.
fn split_tilde(typed: &[u8]) -> (Tilde<'_>, &[u8]) {
    let Some(named) = typed.strip_prefix(b"~") else { return (Tilde::None, typed) };
    let end = named.iter().position(|b| *b == b'/').unwrap_or(named.len());
    let rest = named.get(end + 1..).unwrap_or_default();
    match &named[..end] {
        [] => (Tilde::Own, rest),
        name => (Tilde::User(name), rest),
    }
}

/// A path of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TypedPath<'a> {
    /// How its beginning was spelled, and what stands for that on the disk.
    spelled: &'a [u8],
    start: Vec<u8>,
    /// The rest, as it was typed.
    rest: &'a [u8],
}

impl TypedPath<'_> {
    /// The path, to be opened through the scope's base.
    pub(crate) fn path(&self) -> Vec<u8> {
        [&self.start, self.rest].concat()
    }

    /// The path as a pattern, in which only what was typed is one.
    pub(crate) fn pattern(&self) -> Vec<u8> {
        if !has_magic(self.rest) {
            return self.path();
        }
        let special = |b: &u8| matches!(b, b'\\' | b'*' | b'?' | b'[' | b']');
        let escaped =
            self.start.iter().flat_map(|b| special(b).then_some(b'\\').into_iter().chain([*b]));
        escaped.chain(self.rest.iter().copied()).collect()
    }

    /// What the pattern became, as its user would name it.
    pub(crate) fn as_typed(&self, operand: Vec<u8>) -> Vec<u8> {
        match operand.strip_prefix(self.start.as_slice()) {
            Some(below) => [self.spelled, below].concat(),
            None => operand,
        }
    }
}

#[cfg(test)]
mod tests {
    use fcp_common::expand::expand;

    use super::*;

    fn path(scope: &Scope, typed: &str) -> Result<String, ErrorCode> {
        let typed = scope.typed(Path::new("/home/a"), typed.as_bytes());
        typed.map(|t| String::from_utf8(t.path()).unwrap()).map_err(|e| e.code)
    }

    #[test]
    fn the_root_that_its_owner_drew_keeps_its_mode_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let below = Scope::below(dir.path()).unwrap();
        for (path, rule) in [
            ("/", RootMetaRule::Ignore),
            ("", RootMetaRule::Ignore),
            ("/.//./", RootMetaRule::Ignore),
            ("/in", RootMetaRule::Take),
            ("in/", RootMetaRule::Take),
        ] {
            assert_eq!(below.root_meta(path.as_bytes()), rule, "{path}");
            assert_eq!(Scope::default().root_meta(path.as_bytes()), RootMetaRule::Take);
        }
    }

    #[test]
    fn relative_paths_are_below_home_and_only_the_tilde_is_expanded() {
        let everything = Scope::default();
        for (typed, resolved) in [
            ("", "/home/a/"),
            ("x/y", "/home/a/x/y"),
            ("/etc", "/etc"),
            ("~", "/home/a/"),
            ("~/x", "/home/a/x"),
            ("./~", "/home/a/./~"),
            ("./~root", "/home/a/./~root"),
            ("x/~root", "/home/a/x/~root"),
            ("$HOME", "/home/a/$HOME"),
        ] {
            assert_eq!(path(&everything, typed).as_deref(), Ok(resolved));
        }
    }

    #[test]
    fn a_tilde_and_a_name_is_that_users_home() {
        let root = User::from_name("root").unwrap().unwrap().dir;
        let root = root.to_str().unwrap();
        let everything = Scope::default();
        assert_eq!(path(&everything, "~root"), Ok(format!("{root}/")));
        assert_eq!(path(&everything, "~root/x/y"), Ok(format!("{root}/x/y")));
        let unknown = everything.typed(Path::new("/"), b"~no-such-user-here/x").unwrap_err();
        assert_eq!(unknown.code, ErrorCode::NOT_FOUND);
        assert!(unknown.text.contains("'no-such-user-here'"), "{}", unknown.text);
        for odd in [&b"~\xff"[..], b"~a\0b", b"~~"] {
            assert!(everything.typed(Path::new("/"), odd).is_err());
        }
    }

    #[test]
    fn below_a_root_home_is_the_root_and_nobody_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let below = Scope::below(dir.path()).unwrap();
        for (typed, resolved) in [("", ""), ("x", "x"), ("/x", "/x"), ("~", ""), ("~/x", "x")] {
            assert_eq!(path(&below, typed).as_deref(), Ok(resolved));
        }
        assert_eq!(path(&below, "~root/x"), Err(ErrorCode::NOT_FOUND));
    }

    #[test]
    fn a_home_with_wildcards_in_its_name_is_taken_literally() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a[b]*");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("one.txt"), "1").unwrap();
        let scope = Scope::default();
        let typed = scope.typed(&home, b"~/*.txt").unwrap();
        let found = expand(scope.base(), &typed.pattern(), &mut 1).unwrap();
        assert_eq!(found, [home.join("one.txt").as_os_str().as_bytes()]);
        assert_eq!(typed.as_typed(found[0].clone()), b"~/one.txt");
    }
}
