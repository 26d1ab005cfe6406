//! The proof of PROTOCOL.md section 6.1, computed from its text and nothing else.

use fcp_proto::auth::{Proof, Signature};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(super) const NAME: &str = "laptop";
pub(super) const CLIENT_NONCE: [u8; 32] = [0xa1; 32];
pub(super) const SERVER_NONCE: [u8; 32] = [0xb2; 32];
const TOKEN: [u8; 32] = [0x07; 32];
const BINDING: [u8; 32] = [0xd4; 32];

/// What both ends send.
pub(super) struct Proven {
    pub(super) proof: Proof,
    pub(super) signature: Signature,
}

pub(super) fn computed() -> Proven {
    let client_key = mac(&TOKEN, &[b"fcp client key"]);
    let stored_key: [u8; 32] = Sha256::digest(client_key).into();
    let server_key = mac(&TOKEN, &[b"fcp server key"]);
    let len = [NAME.len() as u8];
    let said: [&[u8]; 6] =
        [b"fcp proof 1", &BINDING, &len, NAME.as_bytes(), &CLIENT_NONCE, &SERVER_NONCE];
    let signed = mac(&stored_key, &said);
    Proven {
        proof: Proof(std::array::from_fn(|i| client_key[i] ^ signed[i])),
        signature: Signature(mac(&server_key, &said)),
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
