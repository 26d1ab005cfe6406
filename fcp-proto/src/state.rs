//! What may come when: one table for both versions, printed in PROTOCOL.md and tested cell by cell.
//!
//! A message of the numbered stream is judged when its number is due, and not at all when it repeats
//! one; every other frame is judged when it arrives. A frame that the table allows can still break a rule of its own: the table knows flags,
//! not contents.

use crate::flag::Flag;

/// The protocol that a session speaks; before the opening's answer, the highest that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The published protocol.
    One,
    /// PROTOCOL.md's own.
    Two,
}

/// The end at which a frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that accepts connections, until it knows what is wanted.
    Server,
    /// The end that connects, until its opening is answered.
    Client,
    /// The end that has the source: the client of a push, the server of a pull.
    Sender,
    /// The end that has the destination.
    Receiver,
}

/// What an end waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Server: the connection is new.
    ExpectOpening,
    /// Server: the opening is answered, the session has no request.
    ExpectRequest,
    /// Server: CHALLENGE is sent.
    ExpectProof,
    /// Client: PUSH is sent.
    ExpectSid,
    /// Client: PULL is sent. A version 1 server may begin to send before it answers.
    ExpectSidOnPull,
    /// Client: HELLO is sent, and it offers a proof.
    ExpectChallenge,
    /// Client: HELLO without such an offer is sent, or PROOF.
    ExpectAccept,
    /// Version 1 receiver: MONOFILE has not come.
    ExpectMonofile,
    /// Version 1 receiver: MONOFILE has come, FILE_COUNT has not.
    ExpectEntriesAndCount,
    /// Version 1 receiver: FILE_COUNT has come; entries or content are missing.
    ExpectRest,
    /// Version 1 sender: FILE_COUNT is not sent.
    ExpectReady,
    /// Version 1 sender: FILE_COUNT is sent.
    ExpectReadyOrDone,
    /// Version 1 sender: EXCEPTION is sent.
    ExpectDone,
    /// Version 2 receiver: FINISH has not come.
    ExpectEntries,
    /// Version 2 receiver: FINISH has come, CLOSE is not sent.
    ExpectContent,
    /// Version 2 sender: FINISH is not sent.
    ExpectAnswers,
    /// Version 2 sender: FINISH is sent.
    ExpectAnswersOrClose,
    /// Version 2, on one connection: DATA has come, its BLOCK has not.
    ExpectRestOfBlock,
    /// Version 2, on one connection: PART has come, the end of its message has not. It may end any
    /// message, as it may be a repeated or an early one; that is judged by the other states.
    ExpectRestOfMessage,
    /// DONE or CLOSE has been sent or has come.
    ExpectNothing,
}

/// What an end does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It means something here.
    Allowed,
    /// The peer broke the protocol.
    Violation,
    /// It is dropped: it comes too late to matter, or may be unknown.
    Ignored,
}

/// One state of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The protocol.
    pub version: Version,
    /// The end.
    pub role: Role,
    /// What it waits for.
    pub state: State,
    /// What may come.
    pub allowed: &'static [Flag],
    /// What is dropped.
    pub ignored: &'static [Flag],
    /// Whether flags with [`Flag::IGNORABLE`] are dropped, known or not.
    pub skips: bool,
}

/// What an end in `state` does with a frame that has `flag`. A state that the table does not have
/// for this version and role allows nothing.
pub fn verdict(version: Version, role: Role, state: State, flag: Flag) -> Verdict {
    let here = |row: &&Row| (row.version, row.role, row.state) == (version, role, state);
    match TABLE.iter().find(here) {
        Some(row) if row.allowed.contains(&flag) => Verdict::Allowed,
        Some(row) if row.ignored.contains(&flag) => Verdict::Ignored,
        Some(row) if row.skips && flag.is_ignorable() => Verdict::Ignored,
        _ => Verdict::Violation,
    }
}

macro_rules! table {
    ($($version:ident $role:ident $state:ident: [$($allowed:ident)*] [$($ignored:ident)*] $skips:literal;)*) => {
        /// Every state there is; a frame that stands in neither list of its row is a violation.
        pub const TABLE: &[Row] = &[$(Row {
            version: Version::$version,
            role: Role::$role,
            state: State::$state,
            allowed: &[$(Flag::$allowed),*],
            ignored: &[$(Flag::$ignored),*],
            skips: $skips,
        }),*];
    };
}

table! {
    One Server ExpectOpening: [PUSH PULL ATTACH] [] false;
    One Client ExpectSid: [SID EXCEPTION] [] false;
    One Client ExpectSidOnPull: [SID MONOFILE DIR_INFO FILE_INFO FILE_COUNT EXCEPTION] [] false;
    One Receiver ExpectMonofile: [MONOFILE DIR_INFO FILE_INFO FILE_COUNT EXCEPTION] [] false;
    One Receiver ExpectEntriesAndCount:
        [DIR_INFO FILE_INFO FILE_COUNT FILE_CHUNK EXCEPTION] [] false;
    One Receiver ExpectRest: [DIR_INFO FILE_INFO FILE_CHUNK EXCEPTION] [] false;
    One Receiver ExpectNothing: [] [FILE_CHUNK EXCEPTION] false;
    One Sender ExpectReady: [FILE_READY EXCEPTION] [] false;
    One Sender ExpectReadyOrDone: [FILE_READY DONE EXCEPTION] [] false;
    One Sender ExpectDone: [DONE EXCEPTION] [FILE_READY] false;
    One Sender ExpectNothing: [] [EXCEPTION] false;
    Two Server ExpectOpening: [PUSH PULL ATTACH HELLO] [] false;
    Two Server ExpectProof: [PROOF ERROR] [] false;
    Two Server ExpectRequest: [REQUEST PART ACK ERROR] [KEEPALIVE] true;
    Two Server ExpectRestOfMessage:
        [PART REQUEST ENTRIES DIRS_END DIGESTS PROBLEM REPLACED GONE FINISH
         WANT RESULTS WRITTEN DIGESTS_WANTED CLOSE] [] false;
    Two Client ExpectSid: [SID EXCEPTION ERROR] [] false;
    Two Client ExpectSidOnPull:
        [SID MONOFILE DIR_INFO FILE_INFO FILE_COUNT EXCEPTION ERROR] [] false;
    Two Client ExpectChallenge: [CHALLENGE ERROR] [] false;
    Two Client ExpectAccept: [ACCEPT ERROR] [] false;
    Two Receiver ExpectEntries:
        [ENTRIES DIRS_END DIGESTS PROBLEM REPLACED GONE FINISH DATA WHOLE PART ACK ERROR]
        [KEEPALIVE] true;
    Two Receiver ExpectContent:
        [DIGESTS PROBLEM REPLACED GONE DATA WHOLE PART ACK ERROR] [KEEPALIVE] true;
    Two Receiver ExpectRestOfBlock: [DATA BLOCK] [] false;
    Two Receiver ExpectRestOfMessage:
        [PART REQUEST ENTRIES DIRS_END DIGESTS PROBLEM REPLACED GONE FINISH] [] false;
    Two Receiver ExpectNothing:
        [PART ACK] [DIGESTS PROBLEM REPLACED GONE DATA WHOLE ERROR KEEPALIVE] true;
    Two Sender ExpectAnswers:
        [WANT RESULTS WRITTEN DIGESTS_WANTED PART ACK ERROR] [KEEPALIVE] true;
    Two Sender ExpectAnswersOrClose:
        [WANT RESULTS WRITTEN DIGESTS_WANTED CLOSE PART ACK ERROR] [KEEPALIVE] true;
    Two Sender ExpectRestOfMessage: [PART REQUEST WANT RESULTS WRITTEN DIGESTS_WANTED CLOSE] [] false;
    Two Sender ExpectNothing: [PART ACK] [RESULTS ERROR KEEPALIVE] true;

}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const VERSIONS: [Version; 2] = [Version::One, Version::Two];
    const ROLES: [Role; 4] = [Role::Server, Role::Client, Role::Sender, Role::Receiver];

    fn states() -> HashSet<State> {
        TABLE.iter().map(|row| row.state).collect()
    }

    /// Every cell: its place, its verdict, and whether the table has its row.
    fn cells() -> impl Iterator<Item = (Version, Role, State, Flag, Verdict)> {
        VERSIONS.into_iter().flat_map(|version| {
            ROLES.into_iter().flat_map(move |role| {
                states().into_iter().flat_map(move |state| {
                    (0..=255).map(Flag).map(move |flag| {
                        (version, role, state, flag, verdict(version, role, state, flag))
                    })
                })
            })
        })
    }

    #[test]
    fn w06_every_row_stands_once_and_no_flag_twice_in_it() {
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(seen.insert((row.version, row.role, row.state)), "{row:?} twice");
            let mut flags = HashSet::new();
            assert!(row.allowed.iter().chain(row.ignored).all(|f| flags.insert(*f)), "{row:?}");
        }
    }

    #[test]
    fn w06_only_the_cells_of_the_table_pass() {
        let mut passed = 0;
        for (version, role, state, flag, verdict) in cells() {
            let row = TABLE.iter().find(|r| (r.version, r.role, r.state) == (version, role, state));
            let listed =
                row.is_some_and(|r| r.allowed.contains(&flag) || r.ignored.contains(&flag));
            let skipped = row.is_some_and(|r| r.skips) && flag.0 >= 0x80;
            let passes = verdict != Verdict::Violation;
            assert_eq!(passes, listed || skipped, "{version:?} {role:?} {state:?} {flag}");
            passed += usize::from(passes && listed);
        }
        let in_table = TABLE.iter().map(|r| r.allowed.len() + r.ignored.len()).sum::<usize>();
        assert_eq!(passed, in_table);
    }

    #[test]
    fn w05_version_1_knows_twelve_flags_and_skips_none() {
        for (version, role, state, flag, verdict) in cells() {
            if version == Version::One && !flag.is_version_1() {
                assert_eq!(verdict, Verdict::Violation, "{role:?} {state:?} {flag}");
            }
        }
    }

    #[test]
    fn w05_an_unknown_flag_is_skipped_or_fatal_never_allowed() {
        for (version, role, state, flag, verdict) in cells() {
            if flag.name().is_none() {
                assert_ne!(verdict, Verdict::Allowed, "{version:?} {role:?} {state:?} {flag}");
                if !flag.is_ignorable() {
                    assert_eq!(verdict, Verdict::Violation, "{role:?} {state:?} {flag}");
                }
            }
        }
    }

    #[test]
    fn a24_a_connection_begins_with_an_opening_or_ends() {
        for flag in (0..=255).map(Flag) {
            let may = crate::packet::Opening::may_begin_with(flag);
            let two = verdict(Version::Two, Role::Server, State::ExpectOpening, flag);
            assert_eq!(two == Verdict::Allowed, may, "{flag}");
            assert_ne!(two, Verdict::Ignored);
        }
    }

    #[test]
    fn no_message_flows_in_both_directions() {
        use Verdict::Allowed;
        for flag in (0..=255).map(Flag).filter(|f| f.is_message()) {
            let due = |state| state != State::ExpectRestOfMessage;
            let at =
                |role| cells().any(|c| c.1 == role && due(c.2) && c.3 == flag && c.4 == Allowed);
            assert!(!(at(Role::Sender) && at(Role::Receiver)), "{flag}");
        }
    }

    #[test]
    fn every_named_flag_is_allowed_somewhere_or_always_skipped() {
        for flag in Flag::ALL {
            let allowed = TABLE.iter().any(|row| row.allowed.contains(flag));
            assert!(allowed || *flag == Flag::KEEPALIVE, "{flag}");
        }
    }
}
