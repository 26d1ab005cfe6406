//! Sessions of version 1: the published protocol, spoken to peers that did not greet with more.

use fcp_proto::Flag;
use fcp_proto::packet::Opening;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::Server;

/// Serves the version 1 session that `opening` asked for over `stream`, until it ends.
///
/// `server.sessions.open` gives the session its id and takes the connections that attach to it;
/// `request::on_thread` runs its blocking part.
pub(crate) async fn serve(server: &Server, mut stream: TcpStream, opening: Opening, uid: u32) {
    let what = if matches!(opening, Opening::Push(_)) { "push" } else { "pull" };
    server.refusals.log("version1", format_args!("refused a version 1 {what} of uid {uid}"));
    let mut out = Vec::new();
    let text = b"protocol version 1 is not supported yet; use a newer fcp";
    fcp_proto::frame::encode(Flag::EXCEPTION, text, &mut out);
    // The peer is refused either way; if it does not listen, that is its loss.
    let _ = stream.write_all(&out).await;
}
