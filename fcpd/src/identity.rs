//! Who is at the other end of a connection, as the kernel, a key or sshd has told.
//!
//! Never what the peer says about itself. A session is bound to the identity that made it, and
//! limits are counted by it.

use std::fmt;
use std::net::IpAddr;

use fcp_proto::escape;

use crate::scope::Scope;

/// Who a peer is. Two are equal only if one may do with the other's session what it likes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A user of this machine, as the kernel has it.
    Uid(u32),
    /// Who proved to have a token, on a connection with this certificate.
    Token {
        /// The token's name in our store.
        name: String,
        /// SHA-256 of the client's certificate; zeros where the connection has none (a tunnel).
        client: [u8; 32],
    },
    /// Whoever logged in and started this process: it is theirs, and so are its sessions.
    Login,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Uid(uid) => write!(f, "uid {uid}"),
            Identity::Token { name, .. } => write!(f, "token '{}'", escape(name.as_bytes())),
            Identity::Login => f.write_str("the ssh login"),
        }
    }
}

/// A peer: who it is, and what it may touch.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// What its requests may reach.
    pub scope: Scope,
}

/// By what a connection is counted that has not said yet what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We know who it is.
    Known(Identity),
    /// We only know where it comes from.
    Address(IpAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a18_a_token_is_another_one_with_another_certificate() {
        let token = |name: &str, client| Identity::Token { name: name.to_owned(), client };
        assert_eq!(token("a", [1; 32]), token("a", [1; 32]));
        assert_ne!(token("a", [1; 32]), token("a", [2; 32]));
        assert_ne!(token("a", [1; 32]), token("b", [1; 32]));
    }

    #[test]
    fn the_log_names_identities_escaped() {
        let token = Identity::Token { name: "a\n".to_owned(), client: [0; 32] };
        let shown = [Identity::Uid(1000), token, Identity::Login].map(|i| i.to_string());
        assert_eq!(shown, ["uid 1000", "token 'a\\012'", "the ssh login"]);
    }
}
