//! Connections come, are cut, stall, and are found dead.

use std::time::Duration;

use fcp_proto::ConnId;

use super::jobs::Job;
use super::net::{Conn, Pipe};
use super::plan::Side;
use super::session::Session;
use super::shells::Inbound;

/// Silence after which a shell calls a connection dead.
const IDLE: Duration = Duration::from_secs(60);

impl Session<'_> {
    pub(super) fn open(&mut self) {
        let (plan, random) = (&self.p.plan, &mut self.p.random);
        let id = ConnId(self.next_conn);
        let latency = plan.latency.mul_f64(1.0 + random.below(100) as f64 / 100.0);
        let pipe = |rate: u64| Pipe::new(latency, rate, plan.window);
        let rate = plan.rate / (1 + random.below(4));
        self.conns.push(Conn {
            id,
            to_receiver: pipe(rate),
            to_sender: pipe(rate),
            moves: true,
            sender_knows: true,
            receiver_knows: true,
            immune: plan.keep_one && self.next_conn + 1 == plan.conns,
            at_receiver: Inbound::default(),
            at_sender: Inbound::default(),
        });
        self.next_conn += 1;
        self.sender.handle_conn_opened(id);
        self.receiver.handle_conn_opened(id);
    }

    /// Both ends find out, not at the same time.
    pub(super) fn cut(&mut self, c: usize) {
        let conn = &mut self.conns[c];
        if !std::mem::replace(&mut conn.moves, false) {
            return;
        }
        let id = conn.id;
        self.p.log(format_args!("{id:?} is cut"));
        for side in [Side::Sender, Side::Receiver] {
            let delay = Duration::from_micros(self.p.random.below(300_000));
            self.at(self.p.now + delay, Job::Notice(id, side));
        }
        if self.p.plan.reopen {
            let delay = Duration::from_micros(self.p.random.below(3_000_000));
            self.at(self.p.now + delay, Job::Open);
        }
    }

    pub(super) fn stall(&mut self, c: usize) {
        let id = self.conns[c].id;
        self.conns[c].moves = false;
        self.p.log(format_args!("{id:?} is stalled"));
        self.at(self.p.now + IDLE, Job::Notice(id, Side::Sender));
        self.at(self.p.now + IDLE, Job::Notice(id, Side::Receiver));
    }

    pub(super) fn notice(&mut self, conn: ConnId, side: Side) {
        let c = &mut self.conns[conn.0 as usize];
        match side {
            Side::Sender => {
                c.sender_knows = false;
                self.sender.handle_conn_lost(conn);
            }
            Side::Receiver => {
                c.receiver_knows = false;
                self.receiver.handle_conn_lost(conn);
            }
        }
    }
}
