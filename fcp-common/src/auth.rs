//! Proving that one has a token without showing it; pure.
//!
//! The computation is SCRAM's (RFC 5802, with the channel binding of RFC 9266) over HMAC-SHA-256,
//! as PROTOCOL.md section 6.1 has it: the server keeps a [`Verifier`], which opens nothing, and both
//! ends prove themselves in one [`Exchange`].

use std::fmt;
use std::str::FromStr;

use fcp_proto::auth::{Proof, Signature};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What a token begins with as text, so that it is found among other output and by secret scanners.
const PREFIX: &str = "fcp-token-";
const PROTOCOL: &[u8] = b"fcp proof 1";

/// A secret that its holder proves to have; 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: one is fcp-token- and 64 hexadecimal digits")]
pub struct BadToken;

impl Token {
    /// A token of these bytes, which must be random.
    pub fn from_random(bytes: [u8; 32]) -> Token {
        Token(bytes)
    }

    /// The token as text; the only way to see it.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", hex(&self.0))
    }

    /// What a server keeps of this token.
    pub fn verifier(&self) -> Verifier {
        let stored_key = Sha256::digest(self.client_key()).into();
        Verifier { stored_key, server_key: self.server_key() }
    }

    fn client_key(&self) -> [u8; 32] {
        finish(mac(&self.0, &[b"fcp client key"]))
    }

    fn server_key(&self) -> [u8; 32] {
        finish(mac(&self.0, &[b"fcp server key"]))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    /// Reads what [`Token::to_text`] gives, with white space around it.
    fn from_str(text: &str) -> Result<Token, BadToken> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(BadToken)?;
        unhex(digits).map(Token).ok_or(BadToken)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a server keeps of a token: enough to check a proof and to answer it, not to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// A verifier that no proof satisfies: it stands for tokens that do not exist, so that they are
    /// refused like wrong ones, as late and for as much work.
    pub fn of_nobody(random: [u8; 32]) -> Verifier {
        Verifier { stored_key: random, server_key: random }
    }

    /// As text, for a file: 128 hexadecimal digits.
    pub fn to_text(&self) -> String {
        hex(&self.stored_key) + &hex(&self.server_key)
    }

    /// Reads what [`Verifier::to_text`] gives.
    pub fn from_text(text: &str) -> Option<Verifier> {
        let (stored, server) = text.split_at_checked(64)?;
        Some(Verifier { stored_key: unhex(stored)?, server_key: unhex(server)? })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// What both ends know of one proof besides the token.
#[derive(Clone)]
pub struct Exchange<'a> {
    /// Ties the proof to its connection: the TLS exporter's bytes, or zeros where the transport has
    /// none.
    pub binding: [u8; 32],
    /// The token's name; at most 255 bytes.
    pub name: &'a str,
    /// Drawn by the client.
    pub client_nonce: [u8; 32],
    /// Drawn by the server.
    pub server_nonce: [u8; 32],
}

impl Exchange<'_> {
    /// The client's proof that it has `token`.
    pub fn proof(&self, token: &Token) -> Proof {
        let client_key = token.client_key();
        let signature = finish(self.signed_with(&token.verifier().stored_key));
        Proof(xor(&client_key, &signature))
    }

    /// The server's answer to a right proof; `None` for a wrong one.
    pub fn verify(&self, verifier: &Verifier, proof: &Proof) -> Option<Signature> {
        let signature = finish(self.signed_with(&verifier.stored_key));
        let client_key = xor(&proof.0, &signature);
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        same(&stored_key, &verifier.stored_key)
            .then(|| Signature(finish(self.signed_with(&verifier.server_key))))
    }

    /// Whether a server that answered with `signature` knows `token`.
    pub fn server_knows(&self, token: &Token, signature: &Signature) -> bool {
        self.signed_with(&token.server_key()).verify_slice(&signature.0).is_ok()
    }

    fn signed_with(&self, key: &[u8; 32]) -> Hmac<Sha256> {
        let name = self.name.as_bytes();
        let name = &name[..name.len().min(255)];
        let len = [name.len() as u8];
        mac(key, &[PROTOCOL, &self.binding, &len, name, &self.client_nonce, &self.server_nonce])
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    // A key of the block's size is used as it is, so there is no length that could be refused.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac
}

fn finish(mac: Hmac<Sha256>) -> [u8; 32] {
    mac.finalize().into_bytes().into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Compares without telling by its time where the first difference is.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    // Comparing authentication codes under a key is constant-time by the hmac crate's contract.
    let key = [0; 32];
    mac(&key, &[a]).verify_slice(&finish(mac(&key, &[b]))).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let pairs = digits.as_bytes().chunks_exact(2);
    if digits.len() != 64 {
        return None;
    }
    let bytes =
        pairs.map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect::<Option<Vec<_>>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange<'static> {
        Exchange {
            binding: [0xd4; 32],
            name: "laptop",
            client_nonce: [0xa1; 32],
            server_nonce: [0xb2; 32],
        }
    }

    fn token() -> Token {
        Token::from_random([7; 32])
    }

    #[test]
    fn the_bytes_are_those_of_the_protocols_example() {
        let proof = exchange().proof(&token());
        let known = "06e735480d12281c3b1370f78c8870db5a43a7c7b8f44b05b253b0ec266e4c95";
        assert_eq!(hex(&proof.0), known);
        let signature = exchange().verify(&token().verifier(), &proof).unwrap();
        let known = "47813787d2f70400eb2383d9baa528531e094ea1e7bf0208060a33924a4520b0";
        assert_eq!(hex(&signature.0), known);
        assert!(exchange().server_knows(&token(), &signature));
    }

    #[test]
    fn a23_a_proof_is_good_for_one_connection_only() {
        let proof = exchange().proof(&token());
        let verifier = token().verifier();
        let signature = exchange().verify(&verifier, &proof).unwrap();
        let replays = [
            Exchange { server_nonce: [0; 32], ..exchange() },
            Exchange { client_nonce: [0; 32], ..exchange() },
            Exchange { binding: [0; 32], ..exchange() },
            Exchange { name: "laptop2", ..exchange() },
            Exchange { name: "", ..exchange() },
        ];
        for replay in replays {
            assert_eq!(replay.verify(&verifier, &proof), None);
            assert!(!replay.server_knows(&token(), &signature));
        }
    }

    #[test]
    fn a23_what_one_end_says_does_not_serve_the_other() {
        let proof = exchange().proof(&token());
        let signature = exchange().verify(&token().verifier(), &proof).unwrap();
        assert!(!exchange().server_knows(&token(), &Signature(proof.0)), "reflected");
        assert_eq!(exchange().verify(&token().verifier(), &Proof(signature.0)), None);
    }

    #[test]
    fn what_the_server_keeps_proves_nothing() {
        let verifier = token().verifier();
        for stolen in [verifier.stored_key, verifier.server_key] {
            let proof = exchange().proof(&Token(stolen));
            assert_eq!(exchange().verify(&verifier, &proof), None);
        }
        let nobody = Verifier::of_nobody([9; 32]);
        assert_eq!(exchange().verify(&nobody, &exchange().proof(&token())), None);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let proof = exchange().proof(&token());
        for bit in 0..256 {
            let mut changed = proof;
            changed.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(exchange().verify(&token().verifier(), &changed), None, "bit {bit}");
        }
    }

    #[test]
    fn tokens_and_verifiers_read_what_they_print() {
        assert_eq!(format!("\t{}\n", token().to_text()).parse(), Ok(token()));
        assert_eq!(Verifier::from_text(&token().verifier().to_text()), Some(token().verifier()));
        let text = token().to_text();
        for bad in ["", "fcp-token-", &text[..text.len() - 1], &text.replace("07", "0x"), "é"] {
            assert_eq!(bad.parse::<Token>(), Err(BadToken));
        }
        assert_eq!(Verifier::from_text(&"é".repeat(64)), None);
        assert!(!format!("{:?}", token()).contains('7'), "secrets are not printed");
    }
}
