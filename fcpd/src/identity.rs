//! Who is at the other end of a connection, as the kernel, a key or sshd has told.
//!
//! Never what the peer says about itself. A session is bound to the identity that made it, and
//! limits are counted by it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use fcp_proto::auth::Fingerprint;
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
    /// Who showed this certificate, by its SHA-256, and nothing else yet; never owns a session.
    Certificate(Fingerprint),
    /// Whoever logged in and started this process: it is theirs, and so are its sessions.
    Login,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Uid(uid) => write!(f, "uid {uid}"),
            Identity::Token { name, .. } => write!(f, "token '{}'", escape(name.as_bytes())),
            Identity::Certificate(client) => write!(f, "a client with certificate {client}"),
            Identity::Login => f.write_str("the ssh login"),
        }
    }
}

impl Identity {
    /// Whether `by` may join the sessions of this identity.
    pub(crate) fn admits(&self, by: &Identity) -> bool {
        match (self, by) {
            (Identity::Token { client, .. }, Identity::Certificate(shown)) => *client == shown.0,
            (_, Identity::Certificate(_)) => false,
            (owner, by) => owner == by,
        }
    }

    /// Whether both share one limit: a token's holder may show as many certificates as it likes.
    pub(crate) fn counts_with(&self, other: &Identity) -> bool {
        match (self, other) {
            (Identity::Token { name: a, .. }, Identity::Token { name: b, .. }) => a == b,
            (a, b) => a == b,
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

impl Origin {
    /// Where a connection comes from: an IPv6 host has a whole network of 64 bits to choose its
    /// address from.
    pub(crate) fn address(addr: IpAddr) -> Origin {
        match addr.to_canonical() {
            IpAddr::V6(v6) => Origin::Address(Ipv6Addr::from(u128::from(v6) >> 64 << 64).into()),
            v4 => Origin::Address(v4),
        }
    }
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
    fn a18_a_certificate_joins_the_sessions_of_its_token_only() {
        let by = Identity::Certificate(Fingerprint([1; 32]));
        let token = |client| Identity::Token { name: "a".to_owned(), client };
        assert!(token([1; 32]).admits(&by));
        for owner in [token([2; 32]), Identity::Uid(0), Identity::Login, by.clone()] {
            assert!(!owner.admits(&by), "{owner}");
        }
        assert!(Identity::Uid(7).admits(&Identity::Uid(7)));
        assert!(!Identity::Uid(7).admits(&Identity::Uid(8)));
    }

    #[test]
    fn w28_a_token_is_counted_once_whatever_certificates_come_with_it() {
        let token = |name: &str, client| Identity::Token { name: name.to_owned(), client };
        assert!(token("a", [1; 32]).counts_with(&token("a", [2; 32])));
        assert!(!token("a", [1; 32]).counts_with(&token("b", [1; 32])));
    }

    #[test]
    fn w26_an_ipv6_host_counts_as_its_network_and_a_mapped_address_as_itself() {
        let origin = |text: &str| Origin::address(text.parse().unwrap());
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.2"), origin("192.0.2.1"));
    }

    #[test]
    fn the_log_names_identities_escaped() {
        let token = Identity::Token { name: "a\n".to_owned(), client: [0; 32] };
        let shown = [Identity::Uid(1000), token, Identity::Login].map(|i| i.to_string());
        assert_eq!(shown, ["uid 1000", "token 'a\\012'", "the ssh login"]);
    }
}
