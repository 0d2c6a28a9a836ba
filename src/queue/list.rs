//! The list of packets, cursors over it, and room for writers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Condvar;

use super::behind::{Behind, Mark, Marks, Volume};
use super::leave::Leave;
use super::overflow::{OnDisk, Overflow};
use super::packet::{Draft, Haste, Packet, held_by};
use super::segment_files::DiskPlace;
use crate::clock;
use crate::limits::QUEUE_PACKET_COST;
use crate::packet::{Position, Sequence};
use crate::ranks::{self, Rank, RankedMutex};
use crate::words::QueueStats;

/// The queue was closed: the product is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Room in the queue, taken before any lock. What is not used is given back on drop.
pub struct Reservation {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.queue.release(self.bytes);
        }
    }
}

/// A reader of the queue, one for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CursorId(u64);

/// Ordered packets between capture and targets. See the module for the flow.
pub struct Queue {
    limit: usize,
    began: Sequence,
    /// Bytes reserved or held. A lock of its own, so that waiting for room never holds the tail.
    room: RankedMutex<Room>,
    room_freed: Condvar,
    /// Last in the lock order (tree, directories, objects, queue): position and list, no I/O.
    pub(super) tail: RankedMutex<Tail>,
    /// What memory has no room for.
    pub(super) overflow: Option<Overflow>,
    pub(super) leave: Leave,
    captured_packets: AtomicU64,
    captured_bytes: AtomicU64,
}

#[derive(Default)]
struct Room {
    used: usize,
    /// Since when threads wait for room, in no order; and how many writers do so without one.
    waiting: Vec<Instant>,
    parked: u64,
    waits: u64,
    waited: Duration,
    /// Rung for those who want to know of a wait.
    bells: Vec<Sender<()>>,
    closed: bool,
    /// Nothing more comes that would fill it: whoever waits goes on.
    all_in: bool,
}

impl Room {
    /// One op larger than the whole limit passes when the queue is empty.
    fn lacks(&self, bytes: usize, limit: usize) -> bool {
        !self.all_in && self.used > 0 && self.used + bytes > limit
    }

    /// One ring that nobody has heard yet is enough.
    fn ring(&mut self) {
        self.bells.retain(|bell| !matches!(bell.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}

pub(super) struct Tail {
    pub(super) last: Position,
    /// After it there are barriers only.
    last_change: Sequence,
    /// Those in memory: what is older and still held is on disk.
    pub(super) packets: VecDeque<Packet>,
    /// Of the packet before those, where there are any.
    pub(super) before_memory: Position,
    pub(super) held_bytes: usize,
    /// Everybody who reads has applied what comes before and including this one.
    pub(super) trimmed: Sequence,
    pub(super) disk: Option<OnDisk>,
    /// All packets so far.
    pub(super) volume: Volume,
    pub(super) marks: Marks,
    pub(super) cursors: BTreeMap<CursorId, Cursor>,
    next_cursor: u64,
}

pub(super) struct Cursor {
    /// Everything up to here may be trimmed as far as this cursor goes.
    pub(super) applied: Sequence,
    /// Up to here the age of packets interests nobody.
    pub(super) durable: Sequence,
    pub(super) wake: Wake,
}

/// Called after an append, outside the tail lock; must not block.
pub(super) type Wake = Arc<dyn Fn(Haste) + Send + Sync>;

impl Queue {
    /// An empty queue in memory, whose next packet comes after `start`. `limit` is in bytes.
    pub fn new(limit: usize, start: Position) -> Arc<Queue> {
        Queue::of(limit, start, None)
    }

    /// A queue that puts on disk what memory has no room for, once somebody does that: see
    /// [`Queue::work_with_disk`].
    ///
    /// Errors: the directory cannot be used.
    pub fn with_disk(limit: usize, start: Position, place: DiskPlace) -> std::io::Result<Arc<Queue>> {
        Ok(Queue::of(limit, start, Some(Overflow::open(limit, place)?)))
    }

    pub(super) fn of(limit: usize, start: Position, overflow: Option<Overflow>) -> Arc<Queue> {
        Arc::new(Queue {
            limit,
            began: start.sequence,
            room: RankedMutex::new(Rank::Queue, Room::default()),
            room_freed: Condvar::new(),
            tail: RankedMutex::new(
                Rank::Queue,
                Tail {
                    last: start,
                    last_change: start.sequence,
                    packets: VecDeque::new(),
                    before_memory: start,
                    held_bytes: 0,
                    trimmed: start.sequence,
                    disk: overflow.is_some().then(OnDisk::default),
                    volume: Volume::default(),
                    marks: Marks::new(),
                    cursors: BTreeMap::new(),
                    next_cursor: 1,
                },
            ),
            overflow,
            leave: Leave::default(),
            captured_packets: AtomicU64::new(0),
            captured_bytes: AtomicU64::new(0),
        })
    }

    /// Takes room for an op with `payload` bytes and up to `header` bytes of header; waits while
    /// the queue is full. Call it before taking any lock.
    pub fn reserve(self: &Arc<Self>, payload: usize, header: usize) -> Result<Reservation, Closed> {
        let bytes = held_by(header, payload);
        let limit = self.limit_for(payload);
        ranks::assert_none_held("a wait for room");
        let mut room = self.room.lock();
        if !room.closed && room.lacks(bytes, limit) {
            let since = clock::now();
            room.waiting.push(since);
            room.waits += 1;
            room.ring();
            while !room.closed && room.lacks(bytes, limit) {
                room.wait_for(&self.room_freed);
            }
            if let Some(own) = room.waiting.iter().position(|other| *other == since) {
                room.waiting.swap_remove(own);
            }
            room.waited += clock::now().saturating_duration_since(since);
        }
        if room.closed {
            return Err(Closed);
        }
        room.used += bytes;
        Ok(Reservation { queue: self.clone(), bytes })
    }

    /// Something comes here whenever a writer begins to wait for room, and when what it waits for has changed while it does:
    /// another reader is the last one, or the disk takes nothing any more.
    pub fn waits(&self) -> Receiver<()> {
        let (bell, heard) = bounded(1);
        self.room.lock().bells.push(bell);
        heard
    }

    /// Who wants to know it hears that writers wait, where some do.
    pub(super) fn tell_of_waits(&self) {
        let mut room = self.room.lock();
        if !room.waiting.is_empty() {
            room.ring();
        }
    }

    /// Bytes that it holds at most; names and attributes may take an eighth more.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Content waits before names and attributes do, which may take an eighth more: while a name waits,
    /// the kernel lets nobody look anything up in its directory.
    fn limit_for(&self, payload: usize) -> usize {
        if payload > 0 { self.limit } else { self.limit + self.limit / 8 }
    }

    /// Whether ops with so many bytes in all would get room without waiting, and nobody waits.
    pub fn has_room(&self, bytes: usize) -> bool {
        let room = self.room.lock();
        room.all_in || room.waiting.is_empty() && room.used + bytes <= self.limit_for(bytes)
    }

    /// Whether an op without a payload, or with a small one, would get room although others wait.
    pub fn has_room_for_names(&self, bytes: usize) -> bool {
        let room = self.room.lock();
        room.all_in || room.used + bytes <= self.limit_for(0)
    }

    /// As if a writer waited for room, or none. Nobody wakes it.
    #[cfg(test)]
    pub(crate) fn pretend_waiting(&self, waits: bool) {
        self.room.lock().waiting = waits.then(clock::now).into_iter().collect();
    }

    /// Room for an op without a payload, at once and whatever is used: for the few ops of the
    /// daemon itself that must not wait, one of a kind at a time.
    pub fn reserve_beyond(self: &Arc<Self>, header: usize) -> Result<Reservation, Closed> {
        self.reserve_now(0, header)
    }

    /// As [`Queue::reserve`], and never waits: the bound is passed by what the few threads that
    /// serve requests ask for at once.
    pub fn reserve_now(self: &Arc<Self>, payload: usize, header: usize) -> Result<Reservation, Closed> {
        let bytes = held_by(header, payload);
        let mut room = self.room.lock();
        if room.closed {
            return Err(Closed);
        }
        room.used += bytes;
        Ok(Reservation { queue: self.clone(), bytes })
    }

    /// Gives the op its position and links it behind everything before. Call it under the same
    /// locks as the change on disk.
    pub fn append(&self, reservation: &mut Reservation, draft: Draft) -> Position {
        self.captured_packets.fetch_add(1, Relaxed);
        self.captured_bytes.fetch_add(draft.payload.len() as u64, Relaxed);
        let (cost, bytes) = (draft.cost(), draft.header.len() + draft.payload.len());
        let queued_at = Instant::now();
        // Before the packet is there: whoever trims it gives all of it back.
        self.grow(reservation, cost);
        let mut tail = self.tail.lock();
        let before = tail.last;
        let position = before.next(draft.digest);
        assert!(position.follows(&before), "no number is left for a packet after {before}");
        tail.last = position;
        if draft.changes {
            tail.last_change = position.sequence;
        }
        if tail.cursors.is_empty() {
            // Nobody reads (capture only): the room goes back with the reservation.
            return position;
        }
        let back = tail.packets.back().map(|packet| packet.position);
        assert!(back.is_none_or(|back| position.follows(&back)), "the queue has no gap");
        if back.is_none() {
            tail.before_memory = before;
        }
        let before = tail.grow(bytes, cost);
        tail.marks.note(Mark { sequence: position.sequence, queued_at, before });
        tail.packets.push_back(Packet {
            position,
            header: Bytes::from(draft.header),
            payload: draft.payload,
            queued_at,
            changes_names: draft.changes_names,
            before,
        });
        tail.held_bytes += cost;
        let is_much = self.overflow.as_ref().is_some_and(|overflow| tail.held_bytes > overflow.spill_at());
        let wakes: WakeList = tail.cursors.values().map(|cursor| cursor.wake.clone()).collect();
        drop(tail);
        // Held by the packet from now on.
        assert!(cost <= reservation.bytes, "{cost} bytes of {} that were reserved", reservation.bytes);
        reservation.bytes -= cost;
        if is_much {
            self.spill_soon();
        }
        wakes.iter().for_each(|wake| wake(draft.haste));
        position
    }

    /// A writer begins to wait without a thread that would wait here.
    pub fn begin_wait(&self) {
        let mut room = self.room.lock();
        room.parked += 1;
        room.waits += 1;
    }

    /// Its turn has come.
    pub fn end_wait(&self, waited: Duration) {
        let mut room = self.room.lock();
        assert!(room.parked > 0, "a writer goes on that did not wait");
        room.parked -= 1;
        room.waited += waited;
    }

    /// Brings a reservation up to the real cost of an op: a header can be longer than expected.
    fn grow(&self, reservation: &mut Reservation, cost: usize) {
        if cost > reservation.bytes {
            self.room.lock().used += cost - reservation.bytes;
            reservation.bytes = cost;
        }
    }

    pub(super) fn release(&self, bytes: usize) {
        let mut room = self.room.lock();
        assert!(bytes <= room.used, "no more room is given back than was taken");
        room.used -= bytes;
        if !room.waiting.is_empty() {
            self.room_freed.notify_all();
        }
    }

    /// The last position given out.
    pub fn last(&self) -> Position {
        self.tail.lock().last
    }

    /// The number before the first packet of its own.
    pub fn began(&self) -> Sequence {
        self.began
    }

    /// The last position at which something changed, not just a barrier: whoever has everything up to it
    /// has everything.
    pub fn last_change(&self) -> Sequence {
        self.tail.lock().last_change
    }

    /// The oldest packet still held; the one after the last where none is.
    pub fn oldest(&self) -> Sequence {
        self.tail.lock().oldest()
    }

    /// A new reader that gets every packet from now on; returns the position it starts after.
    /// `wake` is called after each append, by the thread that appends: it must not block.
    pub fn attach(&self, wake: impl Fn(Haste) + Send + Sync + 'static) -> (CursorId, Position) {
        let mut tail = self.tail.lock();
        let last = tail.last;
        (tail.add_cursor(last.sequence, Arc::new(wake)), last)
    }

    /// Removes a reader; what only it held is trimmed.
    pub fn detach(&self, id: CursorId) {
        let mut tail = self.tail.lock();
        tail.cursors.remove(&id);
        tail.forget_durable();
        let freed = tail.trim();
        assert!(!tail.cursors.is_empty() || tail.packets.is_empty(), "packets are held for nobody");
        drop(tail);
        self.release_trimmed(freed);
        self.tell_of_waits();
    }

    /// The packets after `after`, in order, until `max_bytes` are exceeded (at least one if any): of those in
    /// memory. Whoever may come to what is on disk has a [`Reader`](super::Reader).
    ///
    /// Panics if the packets right after `after` are not there any more: a cursor never goes behind its
    /// own *applied*.
    pub fn next(&self, after: Sequence, max_bytes: usize) -> Vec<Packet> {
        let mut batch = Batch::new(max_bytes);
        self.tail.lock().take_from_memory(after, &mut batch);
        batch.packets
    }

    /// A target has applied everything up to here; acknowledgements may come late, never lower.
    pub fn acknowledge_applied(&self, id: CursorId, applied: Sequence) {
        let mut tail = self.tail.lock();
        assert!(applied <= tail.last.sequence, "a target acknowledged what was never given out");
        let Some(cursor) = tail.cursors.get_mut(&id) else { return };
        let before = cursor.applied;
        cursor.applied = before.max(applied);
        let is_passed = |other: &Cursor| (before..applied).contains(&other.applied);
        let passes = tail.cursors.values().any(is_passed);
        let freed = tail.trim();
        drop(tail);
        self.release_trimmed(freed);
        if passes {
            self.tell_of_waits();
        }
    }

    /// Where writers wait for room and would get some if this reader went, since nobody else is behind it: how long
    /// the first of them has waited by now.
    pub fn waits_for(&self, id: CursorId) -> Option<Duration> {
        let tail = self.tail.lock();
        let own = tail.cursors.get(&id).map(|cursor| cursor.applied)?;
        let holds = own < tail.last.sequence && tail.cursors.values().all(|cursor| cursor.applied >= own);
        drop(tail);
        let since = self.room.lock().waiting.iter().min().copied().filter(|_| holds)?;
        Some(clock::now().saturating_duration_since(since))
    }

    /// A target has made everything up to here durable; acknowledgements may come late.
    pub fn acknowledge_durable(&self, id: CursorId, durable: Sequence) {
        let mut tail = self.tail.lock();
        let Some(cursor) = tail.cursors.get_mut(&id) else { return };
        assert!(durable <= cursor.applied, "no target has durable what it has not applied");
        cursor.durable = cursor.durable.max(durable);
        tail.forget_durable();
    }

    /// What a target lacks that has everything up to `reached`. `None`: how old that is was not
    /// kept, because no reader needs it.
    pub fn behind(&self, reached: Sequence) -> Option<Behind> {
        let tail = self.tail.lock();
        let packets = tail.last.sequence.0.saturating_sub(reached.0);
        if packets == 0 {
            return Some(Behind::default());
        }
        let (since, before) = match tail.held(reached.next()) {
            Some(packet) => (packet.queued_at, packet.before),
            None => tail.marks.of(reached.next(), (tail.last.sequence.next(), tail.volume))?,
        };
        let (bytes, held) = (tail.volume.bytes - before.bytes, tail.volume.held - before.held);
        Some(Behind { since: Some(since), packets, bytes, held })
    }

    /// Lets every waiting writer go with an error, and all that come after.
    pub fn close(&self) {
        self.room.lock().closed = true;
        self.room_freed.notify_all();
    }

    /// Writers find out that their changes are refused: none waits for room any more.
    pub fn let_all_in(&self) {
        self.room.lock().all_in = true;
        self.room_freed.notify_all();
    }

    pub fn stats(&self) -> QueueStats {
        let (packets, disk) = {
            let tail = self.tail.lock();
            let on_disk = tail.disk.as_ref().map(|disk| disk.stats(tail.oldest()));
            (tail.packets.len() as u64 + on_disk.map_or(0, |disk| disk.packets), on_disk)
        };
        let room = self.room.lock();
        QueueStats {
            packets,
            bytes: room.used as u64,
            limit_bytes: self.limit as u64,
            writers_waiting: room.waiting.len() as u64 + room.parked,
            waits: room.waits,
            waited_ms: room.waited.as_millis() as u64,
            captured_packets: self.captured_packets.load(Relaxed),
            captured_bytes: self.captured_bytes.load(Relaxed),
            disk,
        }
    }

    pub(super) fn release_trimmed(&self, Trimmed { bytes, packets, segments }: Trimmed) {
        drop(packets);
        if bytes > 0 {
            self.release(bytes);
        }
        if segments {
            self.spill_soon();
        }
    }
}

pub(super) type WakeList = Vec<Wake>;

/// What was taken out.
pub(super) struct Trimmed {
    bytes: usize,
    packets: Vec<Packet>,
    /// Segments, too.
    segments: bool,
}

/// Packets that go together.
pub(super) struct Batch {
    pub(super) packets: Vec<Packet>,
    bytes: usize,
    max_bytes: usize,
}

impl Batch {
    pub(super) fn new(max_bytes: usize) -> Batch {
        Batch { packets: Vec::new(), bytes: 0, max_bytes }
    }

    pub(super) fn last(&self) -> Option<Sequence> {
        self.packets.last().map(|packet| packet.position.sequence)
    }

    pub(super) fn is_full(&self) -> bool {
        !self.packets.is_empty() && self.bytes >= self.max_bytes
    }

    pub(super) fn push(&mut self, packet: &Packet) {
        self.bytes += packet.header.len() + packet.payload.len() + QUEUE_PACKET_COST;
        self.packets.push(packet.clone());
    }
}

impl Tail {
    pub(super) fn next_id(&mut self) -> CursorId {
        self.next_cursor += 1;
        CursorId(self.next_cursor - 1)
    }

    /// Counts a packet; gives what all before it came to.
    fn grow(&mut self, bytes: usize, cost: usize) -> Volume {
        let before = self.volume;
        self.volume = Volume { bytes: before.bytes + bytes as u64, held: before.held + cost as u64 };
        before
    }

    /// The packet of this number, if it is still here.
    fn held(&self, sequence: Sequence) -> Option<&Packet> {
        let first = self.packets.front()?.position.sequence;
        self.packets.get(usize::try_from(sequence.0.checked_sub(first.0)?).ok()?)
    }

    fn forget_durable(&mut self) {
        match self.cursors.values().map(|cursor| cursor.durable).min() {
            Some(durable) => self.marks.forget_before(durable.next()),
            None => self.marks.clear(),
        }
    }

    /// The oldest packet that is held; the one after the last where none is.
    pub(super) fn oldest(&self) -> Sequence {
        let memory = self.first_in_memory();
        self.disk.as_ref().map_or(memory, |disk| disk.oldest(self.trimmed).unwrap_or(memory))
    }

    /// The one after the last where none is.
    pub(super) fn first_in_memory(&self) -> Sequence {
        self.packets.front().map_or(self.last.sequence.next(), |packet| packet.position.sequence)
    }

    pub(super) fn take_from_memory(&self, after: Sequence, batch: &mut Batch) {
        let Some(front) = self.packets.front() else { return };
        let skip = after
            .next()
            .0
            .checked_sub(front.position.sequence.0)
            .expect("a cursor went behind its acknowledgement");
        for packet in self.packets.iter().skip(skip as usize) {
            if batch.is_full() {
                break;
            }
            batch.push(packet);
        }
    }

    /// Takes out those that are on disk now, up to this one; gives the room that they took.
    pub(super) fn leave_memory(&mut self, upto: Sequence) -> (usize, Vec<Packet>) {
        let count = self.packets.iter().take_while(|packet| packet.position.sequence <= upto).count();
        let gone: Vec<Packet> = self.packets.drain(..count).collect();
        self.before_memory = gone.last().map_or(self.before_memory, |packet| packet.position);
        let bytes = gone.iter().map(|packet| held_by(packet.header.len(), packet.payload.len())).sum();
        assert!(bytes <= self.held_bytes, "no more is trimmed than is held");
        self.held_bytes -= bytes;
        assert_eq!(self.held_bytes == 0, self.packets.is_empty(), "what is held is in packets");
        (bytes, gone)
    }

    /// Takes out what every cursor has behind it; buffers are dropped by the caller, unlocked.
    pub(super) fn trim(&mut self) -> Trimmed {
        let upto = self.cursors.values().map(|cursor| cursor.applied).min().unwrap_or(self.last.sequence);
        self.trimmed = self.trimmed.max(upto);
        let (bytes, packets) = self.leave_memory(upto);
        let segments = self.disk.as_mut().is_some_and(|disk| disk.trim(upto));
        Trimmed { bytes, packets, segments }
    }
}
