//! What is to be done with an entry of the source, given what has its name at the destination.
//! Pure: what `rsync -rlpt` does, within what both places can tell and keep.

use std::time::Duration;

use fcp_common::fs::Kind;
use fcp_proto::ErrorCode;
use fcp_proto::meta::Timestamp;
use fcp_proto::packet::WireError;

use crate::location::{Capabilities, Meta, SetMeta};

/// What counts, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Permissions.
    pub(super) perms: bool,
    /// Modification times.
    pub(super) times: bool,
    /// Symbolic links, as links.
    pub(super) links: bool,
    /// Directories, and what is in them.
    pub(super) recursive: bool,
    /// Content decides whether a file is the same.
    pub(super) checksum: bool,
    /// What new files do not get where permissions are not kept.
    pub(super) umask: u32,
    /// The coarser of the steps in which both places keep times.
    pub(super) grain: Duration,
    /// Some place speaks SFTP, whose times are seconds in 32 bits.
    pub(super) narrow: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A directory that is missing. `clear` is for a link that stands there, which goes away.
    MakeDir {
        /// A link is in the way.
        clear: bool,
    },
    /// A directory that is there; whether its mode or time differ.
    EnterDir {
        /// They do.
        differs: bool,
    },
    /// A file's content and metadata are the same.
    Same,
    /// A file's content is the same, or taken to be; this is to be set.
    Touch(SetMeta),
    /// A file whose content has to be compared first.
    Compare(SetMeta),
    /// A file to copy.
    Copy {
        /// What the copy is to have.
        meta: SetMeta,
        /// Something has its name.
        replaces: bool,
    },
    /// A link to make.
    Link {
        /// Something has its name.
        replaces: bool,
    },
    /// A link where one is already: the same if both hold the same.
    CompareLink {
        /// Its time differs.
        differs: bool,
    },
    /// Left out, as the user has it.
    Skip(&'static str),
    /// Cannot be done.
    Fail(WireError),
}

impl Rules {
    /// Rules for copies from one place to another. Times are compared as both can tell them.
    pub(super) fn between(self, from: Capabilities, to: Capabilities) -> Rules {
        let grain = from.mtime_grain.max(to.mtime_grain);
        Rules { grain, narrow: grain >= Duration::from_secs(1), ..self }
    }

    /// What to do with an entry; `there` is what has its name.
    pub(super) fn step(&self, source: &Meta, there: Option<&Meta>) -> Step {
        match source.kind {
            Kind::Dir if !self.recursive => Step::Skip("directory"),
            Kind::Dir => self.dir(source, there),
            Kind::Symlink if !self.links => Step::Skip("symbolic link"),
            Kind::Symlink => self.link(source, there),
            Kind::File => self.file(source, there),
            Kind::Other => Step::Skip("not a regular file, directory or symbolic link"),
        }
    }

    /// What a directory has at last; `was` is its mode before it was made accessible to us.
    pub(super) fn dir_meta(&self, source: &Meta, was: Option<u32>, made: bool) -> SetMeta {
        let own = source.mode.map(|mode| mode & 0o777);
        let mode = match (self.perms, made) {
            (true, _) => own.or(was),
            (false, true) => own.map(|mode| mode & !self.umask),
            (false, false) => was,
        };
        SetMeta { mode, mtime: self.kept_time(source) }
    }

    /// The time that a copy of `source` gets, if it gets one.
    pub(super) fn kept_time(&self, source: &Meta) -> Option<Timestamp> {
        source.mtime.filter(|_| self.times).map(|time| self.narrowed(time))
    }

    fn dir(&self, source: &Meta, there: Option<&Meta>) -> Step {
        match there {
            None => Step::MakeDir { clear: false },
            Some(old) if old.kind == Kind::Symlink => Step::MakeDir { clear: true },
            Some(old) if old.kind == Kind::Dir => {
                let differs = self.mode_differs(source, old) || self.time_differs(source, old);
                Step::EnterDir { differs }
            }
            Some(_) => fail(ErrorCode::NOT_DIRECTORY, "something else is in the directory's way"),
        }
    }

    fn link(&self, source: &Meta, there: Option<&Meta>) -> Step {
        match there {
            None => Step::Link { replaces: false },
            Some(old) if old.kind == Kind::Dir => {
                fail(ErrorCode::IS_DIRECTORY, "a directory is in the way")
            }
            Some(old) if old.kind == Kind::Symlink => {
                Step::CompareLink { differs: self.time_differs(source, old) }
            }
            Some(_) => Step::Link { replaces: true },
        }
    }

    fn file(&self, source: &Meta, there: Option<&Meta>) -> Step {
        let Some(old) = there else {
            let mode = source.mode.unwrap_or(0o666) & 0o777;
            let mode = if self.perms { mode } else { mode & !self.umask };
            return Step::Copy { meta: self.file_meta(source, mode), replaces: false };
        };
        if old.kind == Kind::Dir {
            return fail(ErrorCode::IS_DIRECTORY, "a directory is in the way");
        }
        let own = source.mode.filter(|_| self.perms || old.kind != Kind::File);
        let mode = own.or(old.mode).unwrap_or(0o666 & !self.umask) & 0o777;
        let meta = self.file_meta(source, mode);
        if old.kind != Kind::File || old.size != source.size {
            return Step::Copy { meta, replaces: true };
        }
        if self.checksum || source.mtime.is_none() || old.mtime.is_none() {
            // Where times are not told, only content can say that nothing is to be done.
            return Step::Compare(self.touch(source, old));
        }
        if !self.is_same_time(source, old) {
            return Step::Copy { meta, replaces: true };
        }
        match self.touch(source, old) {
            nothing if nothing == SetMeta::default() => Step::Same,
            touch => Step::Touch(touch),
        }
    }

    fn file_meta(&self, source: &Meta, mode: u32) -> SetMeta {
        SetMeta { mode: Some(mode), mtime: self.kept_time(source) }
    }

    /// What differs in the metadata of a file whose content is the same.
    fn touch(&self, source: &Meta, old: &Meta) -> SetMeta {
        let mode = source.mode.filter(|_| self.mode_differs(source, old)).map(|m| m & 0o777);
        let mtime = source.mtime.filter(|_| self.time_differs(source, old) && old.mtime.is_some());
        SetMeta { mode, mtime: mtime.map(|mtime| self.narrowed(mtime)) }
    }

    fn mode_differs(&self, source: &Meta, old: &Meta) -> bool {
        let (Some(new), Some(old)) = (source.mode, old.mode) else { return false };
        self.perms && new & 0o777 != old & 0o777
    }

    fn time_differs(&self, source: &Meta, old: &Meta) -> bool {
        self.times && !self.is_same_time(source, old)
    }

    fn is_same_time(&self, source: &Meta, old: &Meta) -> bool {
        let (Some(new), Some(old)) = (source.mtime, old.mtime) else { return false };
        let step = i128::try_from(self.grain.as_nanos()).unwrap_or(i128::MAX).max(1);
        let floor = |time| nanos(self.narrowed(time)).div_euclid(step);
        floor(new) == floor(old)
    }

    /// As SFTP carries it: a time outside 32 bits comes back as the nearest inside, every time.
    fn narrowed(&self, time: Timestamp) -> Timestamp {
        match self.narrow {
            true => Timestamp { secs: time.secs.clamp(0, u32::MAX.into()), ..time },
            false => time,
        }
    }
}

fn nanos(time: Timestamp) -> i128 {
    i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos)
}

fn fail(code: ErrorCode, text: &str) -> Step {
    Step::Fail(WireError::new(code, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        perms: true,
        times: true,
        links: true,
        recursive: true,
        checksum: false,
        umask: 0o022,
        grain: Duration::from_secs(1),
        narrow: true,
    };

    fn meta(kind: Kind, size: u64, secs: i64, nanos: u32) -> Meta {
        Meta { kind, size, mtime: Some(Timestamp { secs, nanos }), mode: Some(0o644), id: None }
    }

    fn file(size: u64, secs: i64, nanos: u32) -> Meta {
        meta(Kind::File, size, secs, nanos)
    }

    #[test]
    fn times_are_compared_as_the_coarser_place_keeps_them() {
        let source = file(5, 100, 123_456_789);
        assert_eq!(RULES.step(&source, Some(&file(5, 100, 0))), Step::Same);
        let later = RULES.step(&source, Some(&file(5, 101, 0)));
        assert!(matches!(later, Step::Copy { replaces: true, .. }), "{later:?}");
        let exact = Rules { grain: Duration::from_nanos(1), narrow: false, ..RULES };
        assert!(matches!(exact.step(&source, Some(&file(5, 100, 0))), Step::Copy { .. }));
    }

    #[test]
    fn a_time_that_sftp_cannot_carry_is_not_copied_for_ever() {
        for (secs, told) in [(-5, 0), (i64::from(u32::MAX) + 7, i64::from(u32::MAX))] {
            assert_eq!(RULES.step(&file(5, secs, 1), Some(&file(5, told, 0))), Step::Same);
        }
    }

    #[test]
    fn where_no_time_is_told_content_decides() {
        let old = Meta { mtime: None, ..file(5, 0, 0) };
        assert_eq!(RULES.step(&file(5, 1, 0), Some(&old)), Step::Compare(SetMeta::default()));
        let longer = RULES.step(&file(6, 1, 0), Some(&old));
        assert!(matches!(longer, Step::Copy { replaces: true, .. }));
    }

    #[test]
    fn checksum_asks_for_content_when_the_lengths_are_equal_only() {
        let rules = Rules { checksum: true, ..RULES };
        let touch = SetMeta { mode: None, mtime: Some(Timestamp { secs: 1, nanos: 0 }) };
        assert_eq!(rules.step(&file(5, 1, 0), Some(&file(5, 9, 0))), Step::Compare(touch));
        assert!(matches!(rules.step(&file(5, 1, 0), Some(&file(6, 1, 0))), Step::Copy { .. }));
    }

    #[test]
    fn modes_are_kept_or_those_of_the_old_file_stay() {
        let source = Meta { mode: Some(0o4755), ..file(5, 1, 0) };
        let old = file(5, 1, 0);
        let touch = Step::Touch(SetMeta { mode: Some(0o755), mtime: None });
        assert_eq!(RULES.step(&source, Some(&old)), touch);
        let loose = Rules { perms: false, ..RULES };
        assert_eq!(loose.step(&source, Some(&old)), Step::Same);
        let mode_of = |step| match step {
            Step::Copy { meta, .. } => meta.mode,
            other => panic!("{other:?}"),
        };
        assert_eq!(mode_of(loose.step(&source, Some(&file(6, 1, 0)))), Some(0o644));
        let new = Meta { mode: Some(0o777), ..source };
        assert_eq!(mode_of(loose.step(&new, None)), Some(0o755));
        assert_eq!(mode_of(RULES.step(&source, None)), Some(0o755));
    }

    #[test]
    fn a_directory_is_never_replaced_and_a_link_never_followed() {
        let (dir, link) = (meta(Kind::Dir, 0, 1, 0), meta(Kind::Symlink, 1, 1, 0));
        let code = |step| match step {
            Step::Fail(error) => error.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(RULES.step(&file(1, 1, 0), Some(&dir))), ErrorCode::IS_DIRECTORY);
        assert_eq!(code(RULES.step(&link, Some(&dir))), ErrorCode::IS_DIRECTORY);
        assert_eq!(code(RULES.step(&dir, Some(&file(1, 1, 0)))), ErrorCode::NOT_DIRECTORY);
        assert_eq!(RULES.step(&dir, Some(&link)), Step::MakeDir { clear: true });
        assert_eq!(RULES.step(&dir, Some(&dir)), Step::EnterDir { differs: false });
        let step = RULES.step(&file(1, 1, 0), Some(&link));
        assert!(matches!(step, Step::Copy { replaces: true, .. }), "{step:?}");
        assert_eq!(RULES.step(&link, Some(&link)), Step::CompareLink { differs: false });
    }

    #[test]
    fn what_the_user_leaves_out_is_left_out() {
        let rules = Rules { links: false, recursive: false, ..RULES };
        let skip = |kind| rules.step(&meta(kind, 0, 0, 0), None);
        assert_eq!(skip(Kind::Symlink), Step::Skip("symbolic link"));
        assert_eq!(skip(Kind::Dir), Step::Skip("directory"));
        assert!(matches!(skip(Kind::Other), Step::Skip(_)));
    }

    #[test]
    fn a_directory_gets_the_modes_of_the_source_or_its_own_again() {
        let source = Meta { mode: Some(0o2750), ..meta(Kind::Dir, 0, 3, 0) };
        assert_eq!(RULES.dir_meta(&source, Some(0o500), false).mode, Some(0o750));
        let loose = Rules { perms: false, times: false, ..RULES };
        let kept = SetMeta { mode: Some(0o500), mtime: None };
        assert_eq!(loose.dir_meta(&source, Some(0o500), false), kept);
        assert_eq!(loose.dir_meta(&source, None, true).mode, Some(0o750));
    }
}
