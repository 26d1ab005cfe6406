//! What reaches a running session from outside: further connections, and its end.

use std::sync::mpsc;

use super::super::conn::Duplex;

/// What reaches a running session from outside, and from itself.
pub(crate) enum Control {
    Conn(Box<Duplex>),
    Over,
    Cancel,
}

/// Hands further connections to a running session.
#[derive(Clone)]
pub struct Connections(mpsc::Sender<Control>);

/// Ends a running session from outside.
#[derive(Clone)]
pub struct Cancel(mpsc::Sender<Control>);

/// The session's side of [`Connections`] and [`Cancel`].
pub struct Inlet {
    pub(crate) sender: mpsc::Sender<Control>,
    pub(crate) receiver: mpsc::Receiver<Control>,
}

impl Inlet {
    /// An inlet for one session.
    pub fn new() -> Inlet {
        let (sender, receiver) = mpsc::channel();
        Inlet { sender, receiver }
    }

    /// To add connections.
    pub fn connections(&self) -> Connections {
        Connections(self.sender.clone())
    }

    /// To end the session.
    pub fn cancel(&self) -> Cancel {
        Cancel(self.sender.clone())
    }
}

impl Default for Inlet {
    fn default() -> Inlet {
        Inlet::new()
    }
}

impl Connections {
    /// Adds a connection; dropped when the session is over.
    pub fn add(&self, duplex: Duplex) {
        // A session that is over has dropped its end, and the connection goes with the error.
        let _ = self.0.send(Control::Conn(Box::new(duplex)));
    }
}

impl Cancel {
    /// Ends the session; what was received is kept for the next run.
    pub fn cancel(&self) {
        let _ = self.0.send(Control::Cancel);
    }
}
