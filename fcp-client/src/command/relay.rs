//! Server to server: what one sends goes through here to the other, and never to this disk.

use std::sync::Arc;

use fcp_common::engine::{self, Inlet, RelayError, RelayOptions};
use fcp_common::relay::Side;
use fcp_proto::limits::MAX_CONNECTIONS;
use fcp_proto::packet::{Direction, Request, Summary};
use fcp_proto::version::{Agreed, Hello};

use super::transfer::{AskedFor, Job, not_remote, one_server};
use crate::connect::{Purpose, Session};
use crate::error::CliError;
use crate::interrupt::interruptible_with;
use crate::target::{Server, Target};

/// Two sessions that agreed on the same.
struct Both {
    source: Session,
    sink: Session,
    agreed: Agreed,
}

impl Job<'_> {
    /// Copies from one server to another, or to another place of the same.
    pub(super) fn relay(
        &self,
        sources: &[Target],
        destination: &Target,
    ) -> Result<Summary, CliError> {
        let (to, path) = destination.remote().ok_or_else(not_remote)?;
        let (from, paths) = one_server(sources)?;
        let AskedFor { one_thing, contents, admits } = self.asked_for(&paths);
        let source_request = self.request(Direction::Pull, paths, one_thing);
        // Its rules are the source's to apply, and whether one file comes is known later.
        let sink_request = Request {
            rules: Vec::new(),
            ..self.request(Direction::Push, vec![path.to_vec()], false)
        };
        let Both { mut source, mut sink, agreed } = self.open_both(&from, &to)?;
        let options = RelayOptions {
            agreed,
            source: source.take_conns(),
            source_request,
            sink: sink.take_conns(),
            sink_request,
            one_thing,
            contents,
            admits: Some(admits),
            report: self.reporter.clone(),
            counters: Arc::clone(&self.counters),
        };
        let inlet = Inlet::new();
        let source = source.begin(&inlet, &self.counters);
        let sink = sink.begin(&inlet, &self.counters);
        let ended = interruptible_with(inlet, |inlet| engine::relay(options, inlet))?;
        ended.map_err(|RelayError { side, error }| {
            let error = source.explain(sink.explain(error));
            blame(RelayError { side, error }, &from, &to)
        })
    }

    /// Opens both sessions with what all three can do.
    fn open_both(&self, from: &Server, to: &Server) -> Result<Both, CliError> {
        let ours = Hello::ours(MAX_CONNECTIONS);
        let (source, agreed) = self.open_end(from, &ours)?;
        let (sink, less) = self.open_end(to, &offer(&agreed))?;
        if is_same(&agreed, &less) {
            return Ok(Both { source, sink, agreed });
        }
        // The destination can do less than the source, so that one is asked for no more, once.
        drop(source);
        let (source, agreed) = self.open_end(from, &offer(&less))?;
        if is_same(&agreed, &less) {
            return Ok(Both { source, sink, agreed });
        }
        Err(CliError::Unsupported(format!(
            "{from} and {to} find no common terms; copy to here first, and from here then"
        )))
    }

    fn open_end(&self, server: &Server, offer: &Hello) -> Result<(Session, Agreed), CliError> {
        let only_1 = || {
            CliError::Unsupported(format!(
                "{server}: protocol version 1 cannot be relayed; copy to here first, and from here \
                 then"
            ))
        };
        if self.config_for(server)?.protocol.value == Some(1) {
            return Err(only_1());
        }
        // A version 1 server would begin at once with what it is asked for, so that is nothing.
        let purpose = Purpose::Pull(Vec::new());
        let session = self.connect_on(server, &purpose, None, Some(offer))?;
        let agreed = session.agreed.clone().ok_or_else(only_1)?;
        Ok((session, agreed))
    }
}

/// To be offered to the other server.
fn offer(agreed: &Agreed) -> Hello {
    Hello {
        min_version: agreed.version,
        max_version: agreed.version,
        features: agreed.features,
        max_frame: agreed.max_frame,
        open_entries: agreed.open_entries,
        idle_secs: agreed.idle_secs,
        ..Hello::ours(agreed.connections)
    }
}

/// Whether what one end of the relay does is right for the other. Each has as many connections as
/// it likes; those without a partner are not used.
fn is_same(one: &Agreed, other: &Agreed) -> bool {
    *one == Agreed { connections: one.connections, ..other.clone() }
}

/// Says which of the two servers it is.
fn blame(why: RelayError, from: &Server, to: &Server) -> CliError {
    let RelayError { side, error } = why;
    match side {
        Some(Side::Source) => CliError::Relay { server: format!("source {from}"), error },
        Some(Side::Sink) => CliError::Relay { server: format!("destination {to}"), error },
        None => CliError::Session(error),
    }
}
