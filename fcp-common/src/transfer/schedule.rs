//! Which block goes next, over which connection; what is in flight; what must go again.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::Block;
use fcp_proto::{ConnId, FileId};

use crate::range_set::RangeSet;

/// How long a block may be in flight at least before a connection that has nothing else to do
/// repeats it.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// And how many times as long as blocks use to take: on a long path a block waits in buffers.
const REPEAT_TIMES: u32 = 4;
/// But no longer than this, or blocks that crawl would make their own slowness the usual.
const REPEAT_AT_LAST: Duration = Duration::from_secs(3);

/// Bytes in flight on a connection that has carried nothing yet: with less, it would be idle while
/// a block is written.
const AT_FIRST: u64 = 2 * BLOCK;

/// How many times as long as on others a block takes on a connection that has carried none.
const UNPROVEN: u32 = 4;

/// Wanted blocks in the order they were wanted, and blocks in flight.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Files with wanted blocks, oldest first; a file stands here once.
    queue: VecDeque<FileId>,
    wanted: HashMap<FileId, RangeSet>,
    /// Bytes in `wanted`.
    waiting: u64,
    in_flight: BTreeMap<(FileId, u64), Flight>,
    per_conn: HashMap<ConnId, Load>,
    /// Connections whose block was repeated elsewhere and that have done nothing since: two dead
    /// ones would hand it to each other for ever.
    suspect: HashSet<ConnId>,
    /// No block is in flight since before this: spares walks of them all, as the oldest only gets
    /// younger.
    oldest: Cell<Duration>,
    /// How long blocks use to be in flight: smoothed as TCP smooths its round trip (RFC 6298).
    usual: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    len: u32,
    conn: ConnId,
    since: Duration,
    repeated: bool,
}

/// What a connection has taken.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Not acknowledged.
    blocks: usize,
    /// Not acknowledged.
    bytes: u64,
    /// Acknowledged bytes.
    done: u64,
    /// How long its blocks use to be in flight; zero as long as none was acknowledged.
    usual: Duration,
    /// When the last one was.
    last: Duration,
}

impl Load {
    /// Bytes per second, of a connection that has shown it, and has just done so.
    fn rate(&self, now: Duration) -> u64 {
        let is_alive = now.saturating_sub(self.last) < self.usual * 2;
        if self.usual.is_zero() || self.bytes == 0 || !is_alive {
            return 0;
        }
        (u128::from(self.bytes) * 1_000_000 / self.usual.as_micros().max(1)) as u64
    }
}

impl Schedule {
    /// Adds wanted bytes; `range` begins at a block.
    pub fn want(&mut self, file: FileId, range: Range<u64>) {
        // A block that is wanted again was lost or did not match, so it is not in flight.
        let flights: Vec<u64> = self
            .in_flight
            .range((file, range.start)..(file, range.end))
            .map(|(k, _)| k.1)
            .collect();
        flights.into_iter().for_each(|offset| self.land(file, offset));
        let set = self.wanted.entry(file).or_default();
        if set.is_empty() {
            self.queue.push_back(file);
        }
        self.waiting = self.waiting.saturating_add(set.insert(range));
    }

    /// The block that `conn` should carry now: a wanted one, or when there is none and `conn` is
    /// idle, one that another connection has been carrying for too long.
    pub fn next(&mut self, conn: ConnId, now: Duration) -> Option<Block> {
        let block = self.fresh().or_else(|| self.overdue(conn, now))?;
        let key = (block.file, block.offset);
        let repeated = self.in_flight.remove(&key);
        if let Some(old) = repeated {
            self.release(&old);
            self.suspect.insert(old.conn);
        }
        let flight = Flight { len: block.len, conn, since: now, repeated: repeated.is_some() };
        self.in_flight.insert(key, flight);
        let load = self.per_conn.entry(conn).or_default();
        load.blocks += 1;
        load.bytes += u64::from(block.len);
        Some(block)
    }

    /// The receiver has the block that begins at `offset`.
    pub fn handle_written(&mut self, file: FileId, offset: u64, now: Duration) {
        if let Some(flight) = self.in_flight.get(&(file, offset)) {
            let took = now.saturating_sub(flight.since);
            self.usual = if self.usual.is_zero() { took } else { (self.usual * 7 + took) / 8 };
        }
        self.learn(file, offset, now);
        self.land(file, offset);
        // It had arrived when its connection was lost: it need not go again.
        if let Some(set) = self.wanted.get_mut(&file).filter(|set| !set.is_empty()) {
            self.waiting =
                self.waiting.saturating_sub(set.remove(offset..offset.saturating_add(BLOCK)));
            if set.is_empty() {
                self.queue.retain(|f| *f != file);
            }
        }
    }

    /// Blocks that `conn` carried are wanted again.
    pub fn handle_conn_lost(&mut self, conn: ConnId) {
        self.per_conn.remove(&conn);
        self.suspect.remove(&conn);
        let lost: Vec<_> = self
            .in_flight
            .iter()
            .filter(|(_, f)| f.conn == conn)
            .map(|(k, f)| (k.0, k.1..k.1 + u64::from(f.len)))
            .collect();
        for (file, range) in lost {
            self.want(file, range);
        }
    }

    /// The receiver has the whole file.
    pub fn handle_finished(&mut self, file: FileId, now: Duration) {
        let flights = self.in_flight.range((file, 0)..=(file, u64::MAX)).map(|(key, _)| key.1);
        for offset in flights.collect::<Vec<_>>() {
            self.learn(file, offset, now);
        }
        self.forget(file);
    }

    /// The file is finished or void.
    pub fn forget(&mut self, file: FileId) {
        if let Some(set) = self.wanted.remove(&file).filter(|set| !set.is_empty()) {
            self.waiting = self.waiting.saturating_sub(set.len());
            self.queue.retain(|f| *f != file);
        }
        while let Some((&(f, offset), _)) = self.in_flight.range((file, 0)..).next() {
            if f != file {
                break;
            }
            self.land(f, offset);
        }
    }

    /// Bytes that `conn` has taken and that are not acknowledged.
    pub fn in_flight(&self, conn: ConnId) -> u64 {
        self.per_conn.get(&conn).map_or(0, |load| load.bytes)
    }

    /// Bytes that went over `conn` and are acknowledged.
    pub fn done(&self, conn: ConnId) -> u64 {
        self.per_conn.get(&conn).map_or(0, |load| load.done)
    }

    /// Whether `conn` should take another block: a new connection has shown nothing of its speed,
    /// and what its buffers swallow would be missing at the end. One in slow start doubles what is
    /// under way each round trip, so twice what it has carried never holds it back.
    pub fn has_room(&self, conn: ConnId, now: Duration) -> bool {
        let load = self.per_conn.get(&conn).copied().unwrap_or_default();
        load.bytes < AT_FIRST.saturating_add(load.done.saturating_mul(2))
            && !self.would_be_last(conn, &load, now)
    }

    /// Whether others would have carried all that waits before `conn` has carried one block more.
    /// The quickest never would be, so that nothing waits for ever.
    fn would_be_last(&self, conn: ConnId, load: &Load, now: Duration) -> bool {
        let others = || self.per_conn.iter().filter(|(c, _)| **c != conn).map(|(_, l)| l);
        let busy = || others().filter(|other| other.rate(now) > 0);
        let Some(usual) = busy().map(|other| other.usual).min() else { return false };
        let rate: u64 = busy().map(|other| other.rate(now)).sum();
        let left = Duration::from_micros(self.waiting.saturating_mul(1_000_000) / rate.max(1));
        let own = if load.usual.is_zero() { usual * UNPROVEN } else { load.usual };
        own > left + usual + usual / 2
    }

    /// Whether a wanted block waits.
    pub fn has_fresh(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether `conn` should repeat a block that another connection has been carrying for too long.
    pub fn has_overdue(&self, conn: ConnId, now: Duration) -> bool {
        self.overdue(conn, now).is_some()
    }

    /// When to look again for a block to repeat; not exact, as that would cost a walk of them all.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        (!self.in_flight.is_empty()).then_some(now + REPEAT_AFTER / 2)
    }

    fn fresh(&mut self) -> Option<Block> {
        let file = *self.queue.front()?;
        // A file stands in the queue only while its set is not empty.
        let set = self.wanted.get_mut(&file)?;
        let range = set.pop_block(BLOCK)?;
        self.waiting = self.waiting.saturating_sub(range.end - range.start);
        if set.is_empty() {
            self.queue.pop_front();
        }
        Some(Block { file, offset: range.start, len: (range.end - range.start) as u32 })
    }

    fn overdue(&self, conn: ConnId, now: Duration) -> Option<Block> {
        if self.suspect.contains(&conn)
            || self.per_conn.get(&conn).is_some_and(|load| load.blocks > 0)
        {
            return None;
        }
        let patience = (self.usual * REPEAT_TIMES).clamp(REPEAT_AFTER, REPEAT_AT_LAST);
        if now.saturating_sub(self.oldest.get()) < patience {
            return None;
        }
        let (key, flight) = self.in_flight.iter().min_by_key(|(_, f)| f.since)?;
        self.oldest.set(flight.since);
        let overdue = flight.conn != conn && now.saturating_sub(flight.since) >= patience;
        overdue.then_some(Block { file: key.0, offset: key.1, len: flight.len })
    }

    /// What the acknowledgement of a block tells of the connection that carried it.
    fn learn(&mut self, file: FileId, offset: u64, now: Duration) {
        let Some(flight) = self.in_flight.get(&(file, offset)) else { return };
        let Some(load) = self.per_conn.get_mut(&flight.conn) else { return };
        let took = now.saturating_sub(flight.since);
        load.usual = if load.usual.is_zero() { took } else { (load.usual * 3 + took) / 4 };
        load.last = now;
    }

    fn land(&mut self, file: FileId, offset: u64) {
        if let Some(flight) = self.in_flight.remove(&(file, offset)) {
            self.release(&flight);
            if let Some(load) = self.per_conn.get_mut(&flight.conn) {
                load.done = load.done.saturating_add(flight.len.into());
            }
            if !flight.repeated {
                self.suspect.remove(&flight.conn);
            }
        }
    }

    fn release(&mut self, flight: &Flight) {
        if let Some(load) = self.per_conn.get_mut(&flight.conn) {
            load.blocks = load.blocks.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(flight.len.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(0);
    const B: ConnId = ConnId(1);
    const F: FileId = FileId(7);
    const T0: Duration = Duration::ZERO;

    #[test]
    fn d05_a_lost_connections_blocks_go_to_another() {
        let mut s = Schedule::default();
        s.want(F, 0..3 * BLOCK);
        let (a, b) = (s.next(A, T0).unwrap(), s.next(B, T0).unwrap());
        s.handle_conn_lost(A);
        let rest: Vec<_> = std::iter::from_fn(|| s.next(B, T0)).collect();
        assert_eq!(rest.len(), 2);
        assert!(rest.contains(&a) && !rest.contains(&b));
    }

    #[test]
    fn w23_an_idle_connection_repeats_what_a_slow_one_holds() {
        let mut s = Schedule::default();
        s.want(F, 0..2 * BLOCK);
        let slow = s.next(A, T0).unwrap();
        let quick = s.next(B, T0).unwrap();
        assert_eq!(s.next(B, REPEAT_AFTER), None, "B has not finished its own yet");
        s.handle_written(F, quick.offset, T0);
        assert_eq!(s.next(B, T0), None, "not overdue yet");
        assert_eq!(s.next(B, REPEAT_AFTER), Some(slow));
        s.handle_written(F, slow.offset, T0);
        assert_eq!(s.next(B, 9 * REPEAT_AFTER), None);
    }

    #[test]
    fn w23_where_blocks_take_long_a_slow_one_is_not_repeated_soon() {
        let mut s = Schedule::default();
        s.want(F, 0..2 * BLOCK);
        let (slow, usual) = (s.next(A, T0).unwrap(), s.next(B, T0).unwrap());
        s.handle_written(F, usual.offset, REPEAT_AFTER);
        assert_eq!(s.next(B, 2 * REPEAT_AFTER), None);
        assert_eq!(s.next(B, REPEAT_AT_LAST), Some(slow));
    }

    #[test]
    fn w23_two_dead_connections_do_not_hand_a_block_to_each_other() {
        let (c, mut s) = (ConnId(2), Schedule::default());
        s.want(F, 0..1);
        let only = s.next(A, T0).unwrap();
        assert_eq!(s.next(B, REPEAT_AFTER), Some(only));
        assert_eq!(s.next(A, 9 * REPEAT_AFTER), None);
        assert_eq!(s.next(c, 9 * REPEAT_AFTER), Some(only));
    }

    #[test]
    fn d05_a_block_that_arrived_before_its_connection_was_lost_does_not_go_again() {
        let mut s = Schedule::default();
        s.want(F, 0..2 * BLOCK);
        let (first, second) = (s.next(A, T0).unwrap(), s.next(A, T0).unwrap());
        s.handle_conn_lost(A);
        s.handle_written(F, first.offset, T0);
        assert_eq!((s.next(B, T0), s.next(B, T0)), (Some(second), None));
        s.handle_conn_lost(B);
        s.handle_written(F, second.offset, T0);
        assert!(!s.has_fresh());
    }

    #[test]
    fn a_new_connection_takes_no_more_than_it_has_shown_to_carry() {
        let mut s = Schedule::default();
        s.want(F, 0..100 * BLOCK);
        let take = |s: &mut Schedule| {
            std::iter::from_fn(|| s.has_room(A, T0).then(|| s.next(A, T0)).flatten())
                .collect::<Vec<_>>()
        };
        let first = take(&mut s);
        assert_eq!(first.len(), 2);
        assert!(s.has_room(B, T0), "each for itself");
        s.handle_written(F, first[0].offset, T0);
        // One is in flight still, and four may be.
        assert_eq!((take(&mut s).len(), s.done(A)), (3, BLOCK));
        // What went elsewhere after all shows nothing.
        s.handle_conn_lost(A);
        assert_eq!((s.done(A), take(&mut s).len()), (0, 2));
    }

    #[test]
    fn the_last_blocks_are_left_to_those_that_have_shown_to_be_quick() {
        let ms = Duration::from_millis;
        let (quick, new) = (A, B);
        let mut s = Schedule::default();
        s.want(F, 0..100 * BLOCK);
        // A block each tenth of a second, two under way.
        let mut under_way =
            VecDeque::from([s.next(quick, T0).unwrap(), s.next(quick, T0).unwrap()]);
        let mut was_refused_at = None;
        for turn in 1..=98 {
            let now = ms(turn * 100);
            let block = under_way.pop_front().unwrap();
            s.handle_written(F, block.offset, now);
            under_way.push_back(s.next(quick, now).unwrap());
            assert!(s.has_room(quick, now), "the quickest is never refused");
            if !s.has_room(new, now) {
                was_refused_at.get_or_insert(100 - turn);
            }
        }
        // A new one may take four times as long, which is eight blocks of the quick one.
        assert!(matches!(was_refused_at, Some(5..=12)), "{was_refused_at:?}");
        // One that falls silent is waited for no longer than it would have taken.
        assert!(!s.has_room(new, ms(9_850)) && s.has_room(new, ms(10_800)));
    }

    #[test]
    fn a_forgotten_file_leaves_nothing_behind() {
        let mut s = Schedule::default();
        s.want(F, 0..5 * BLOCK);
        s.want(FileId(8), 0..10);
        s.next(A, T0);
        s.forget(F);
        assert_eq!(s.next(A, T0).unwrap().file, FileId(8));
        assert!(!s.has_fresh());
    }
}
