//! Asking a peer to prove that it has a token (PROTOCOL.md section 6.1).

use std::io;

use fcp_common::auth::{Exchange, Verifier};
use fcp_proto::auth::{AuthOffer, Challenge, Proof, Signature};
use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::frame::{self, HEAD_LEN, Head};
use fcp_proto::{Flag, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::token;
use crate::transport::Transport;

/// Why a proof is none; for the log, not for the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproven {
    #[error("no proof in time")]
    Late,
    #[error("a wrong proof")]
    Wrong,
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("the connection was lost before the proof: {0}")]
    Io(#[from] io::Error),
}

/// Challenges the peer, which offered to prove a token, and checks its proof with `verifier`; the
/// answer is ours. Without a verifier there is no such token, and the peer cannot tell: the same is
/// said and done. The caller sees to the time that it takes.
///
/// # Errors
/// [`Unproven`]; the peer was told nothing.
pub(crate) async fn ask(
    transport: &mut Transport,
    binding: [u8; 32],
    offer: &AuthOffer,
    verifier: Option<&Verifier>,
) -> Result<Signature, Unproven> {
    let random = || token::random().map_err(io::Error::from);
    let (server_nonce, nobody) = (random()?, Verifier::of_nobody(random()?));
    let mut out = Vec::new();
    let challenge = Challenge { nonce: server_nonce };
    frame::encode_with(Flag::CHALLENGE, &mut out, |out| challenge.encode(out));
    transport.write_all(&out).await?;
    transport.flush().await?;
    let proof = read(transport).await?;
    let exchange =
        Exchange { binding, name: offer.name(), client_nonce: offer.nonce, server_nonce };
    exchange.verify(verifier.unwrap_or(&nobody), &proof).ok_or(Unproven::Wrong)
}

async fn read(transport: &mut Transport) -> Result<Proof, Unproven> {
    const LEN: usize = 32;
    let mut head = [0; HEAD_LEN];
    transport.read_exact(&mut head).await?;
    let head = Head::from_bytes(head);
    if head.flag != Flag::PROOF {
        return Err(Violation::Unexpected { got: head.flag, expected: "PROOF" }.into());
    }
    if usize::from(head.len) != LEN {
        return Err(Violation::rule(head.flag, "is not 32 bytes long").into());
    }
    let mut payload = [0; LEN];
    transport.read_exact(&mut payload).await?;
    if Head::of(head.flag, &payload).crc != head.crc {
        return Err(Violation::from(frame::BadChecksum { flag: head.flag }).into());
    }
    let malformed = |error| Violation::Decode { flag: head.flag, error };
    Ok(decode_exact(&payload).map_err(malformed)?)
}
