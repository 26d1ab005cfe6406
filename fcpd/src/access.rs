//! Who may connect over loopback: the user that fcpd runs as, and nobody else.
//!
//! Pure: the kernel is asked by [`fcp_common::peer`], the answer is judged here. What a peer says
//! about itself (the JSON `user`) is not among the arguments, so it cannot decide anything.

use fcp_common::peer::Unknown;

/// Why a connection is closed before a byte of it is read. `Display` is the text for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer is another user. Root is one too, when fcpd does not run as root.
    #[error("refused a connection of uid {peer}: this fcpd serves uid {own} only")]
    OtherUser {
        /// The uid at the other end, as the kernel has it.
        peer: u32,
        /// The uid that fcpd runs as.
        own: u32,
    },
    /// The kernel did not say beyond doubt who the peer is.
    #[error("refused a connection of an unknown user: {0}")]
    Unidentified(#[from] Unknown),
}

impl Refusal {
    /// What the peer is told: what to do about it, and nothing about this host or its users.
    pub fn text_for_peer(&self) -> &'static str {
        match self {
            Refusal::OtherUser { .. } => {
                "this fcpd serves another user; start one of your own, or connect over ssh"
            }
            Refusal::Unidentified(_) => {
                "this fcpd could not tell which user you are; connect over ssh instead"
            }
        }
    }
}

/// Whether fcpd, running as `own_uid`, serves the peer that the kernel names as `peer`.
///
/// # Errors
/// [`Refusal`] for every other user, root included, and for every peer that is not certain.
pub fn may_serve(own_uid: u32, peer: Result<u32, Unknown>) -> Result<(), Refusal> {
    match peer? {
        uid if uid == own_uid => Ok(()),
        peer => Err(Refusal::OtherUser { peer, own: own_uid }),
    }
}

#[cfg(test)]
mod tests {
    use fcp_common::peer::End;

    use super::*;

    const ALICE: u32 = 1000;
    const BOB: u32 = 1001;

    #[test]
    fn a05_only_our_own_uid_is_served() {
        assert_eq!(may_serve(ALICE, Ok(ALICE)), Ok(()));
        let refused = may_serve(ALICE, Ok(BOB));
        assert_eq!(refused, Err(Refusal::OtherUser { peer: BOB, own: ALICE }));
    }

    #[test]
    fn a25_root_is_another_user_unless_fcpd_is_roots() {
        assert_eq!(may_serve(ALICE, Ok(0)), Err(Refusal::OtherUser { peer: 0, own: ALICE }));
        assert_eq!(may_serve(0, Ok(ALICE)), Err(Refusal::OtherUser { peer: ALICE, own: 0 }));
        assert_eq!(may_serve(0, Ok(0)), Ok(()));
    }

    #[test]
    fn a11_doubt_is_refused_whoever_we_are() {
        let doubts = [
            Unknown::NotEstablished(End::Ours),
            Unknown::NoSuchSocket(End::Theirs),
            Unknown::Orphaned(End::Theirs),
            Unknown::Unmapped(65534),
            Unknown::NoKernelTable { netlink: "EPERM".into(), proc: "ENOENT".into() },
        ];
        for own in [0, ALICE, 65534] {
            for doubt in &doubts {
                let refused = Err(Refusal::Unidentified(doubt.clone()));
                assert_eq!(may_serve(own, Err(doubt.clone())), refused);
            }
        }
    }

    #[test]
    fn the_log_gets_the_facts_and_the_peer_only_advice() {
        let other = Refusal::OtherUser { peer: BOB, own: ALICE };
        let unknown = Refusal::from(Unknown::Orphaned(End::Theirs));
        assert_eq!(
            other.to_string(),
            "refused a connection of uid 1001: this fcpd serves uid 1000 only"
        );
        assert_eq!(
            unknown.to_string(),
            "refused a connection of an unknown user: no process holds the other end of the \
             connection"
        );
        for refusal in [other, unknown] {
            let told = refusal.text_for_peer();
            assert!(!told.contains(|c: char| c.is_ascii_digit()), "{told}");
            assert!(told.contains("ssh"), "says what to do instead: {told}");
        }
    }
}
