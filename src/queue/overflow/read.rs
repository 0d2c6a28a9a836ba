//! From disk to a link: a window ahead of each reader, filled by a thread of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::super::list::{Batch, Queue, Tail, WakeList};
use super::super::packet::{Haste, Packet};
use super::super::segment::{self, NoRecord, RECORDS_AT};
use super::{Lost, OnDisk, Segment};
use crate::limits::{PAYLOAD_LEN_MAX, QUEUE_READ_BATCH, QUEUE_WINDOW};
use crate::packet::{Position, Sequence};
use crate::pool::{self, Pool};

/// Who sends packets: has what comes next at hand, also where it lies on disk.
pub struct Reader {
    queue: Arc<Queue>,
    window: u64,
}

/// What a reader has in memory of what is on disk.
#[derive(Default)]
pub(super) struct Window {
    /// What the reader has.
    after: Sequence,
    /// Those right behind it.
    packets: VecDeque<Packet>,
    bytes: usize,
    /// Where those behind them are, if they were read from there.
    place: Option<Place>,
    /// More is to be read.
    wants: bool,
}

#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    before: Position,
}

/// What is to be read for one window.
struct Plan {
    window: u64,
    segment: Segment,
    place: Place,
    next: Sequence,
}

impl Reader {
    pub fn of(queue: &Arc<Queue>) -> Reader {
        let mut tail = queue.tail.lock();
        let window = tail.disk.as_mut().map_or(0, |disk| {
            disk.next_window += 1;
            disk.windows.insert(disk.next_window, Window::default());
            disk.next_window
        });
        drop(tail);
        Reader { queue: queue.clone(), window }
    }

    /// The packets after `after`, in order, until `max_bytes` are exceeded. None where none is queued, and where
    /// the next one is still to be read from disk or may not go yet: then every reader of the queue is woken when
    /// it is there.
    ///
    /// Panics as [`Queue::next`] does.
    pub fn next(&self, after: Sequence, max_bytes: usize) -> Vec<Packet> {
        let mut batch = Batch::new(max_bytes);
        let reads = self.queue.tail.lock().take(self.window, after, &mut batch);
        if reads {
            self.queue.overflow.iter().for_each(|overflow| overflow.read.ring());
        }
        self.queue.leave.cut(&mut batch.packets);
        batch.packets
    }
}

impl Reader {
    /// Whether some of what comes next is still to be read from disk.
    pub fn awaits_more(&self) -> bool {
        let tail = self.queue.tail.lock();
        tail.disk.as_ref().and_then(|disk| disk.windows.get(&self.window)).is_some_and(|window| window.wants)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let gone = self.queue.tail.lock().disk.as_mut().and_then(|disk| disk.windows.remove(&self.window));
        drop(gone);
    }
}

impl Tail {
    /// Whether more is to be read from disk.
    fn take(&mut self, window: u64, after: Sequence, batch: &mut Batch) -> bool {
        let in_memory = self.first_in_memory();
        let (trimmed, Some(disk)) = (self.trimmed, &mut self.disk) else {
            self.take_from_memory(after, batch);
            return false;
        };
        let oldest = disk.oldest(trimmed).unwrap_or(in_memory);
        if after.next() < oldest {
            let is_lost = disk.lost.as_ref().is_some_and(|lost| after < lost.upto);
            assert!(is_lost, "a cursor went behind its acknowledgement");
            return false;
        }
        let window = disk.windows.get_mut(&window).expect("a reader has a window");
        window.goes_on(after);
        for packet in &window.packets {
            if batch.is_full() {
                break;
            }
            batch.push(packet);
        }
        let (reached, end) = (batch.last().unwrap_or(after), window.end());
        window.wants = end.next() < in_memory && window.bytes < QUEUE_WINDOW;
        let wants = window.wants;
        if reached.next() >= in_memory && !batch.is_full() {
            self.take_from_memory(reached, batch);
        }
        wants
    }
}

impl Window {
    /// The last one that it has.
    fn end(&self) -> Sequence {
        self.packets.back().map_or(self.after, |packet| packet.position.sequence)
    }

    /// The reader has everything up to here.
    fn goes_on(&mut self, after: Sequence) {
        while let Some(front) = self.packets.front()
            && front.position.sequence <= after
        {
            self.bytes -= cost(front);
            self.packets.pop_front();
        }
        let next = self.packets.front().map(|packet| packet.position.sequence);
        if next.is_some_and(|next| next != after.next()) {
            self.packets.clear();
            self.bytes = 0;
        }
        self.after = after;
        self.place.take_if(|place| {
            place.before.sequence != self.packets.back().map_or(after, |packet| packet.position.sequence)
        });
    }
}

fn cost(packet: &Packet) -> usize {
    segment::record_len(packet) + size_of::<Packet>()
}

impl OnDisk {
    /// One after the other, whoever wants something.
    fn plan_read(&mut self) -> Option<Plan> {
        loop {
            let id = self.next_that_wants()?;
            let plan = self.plan_for(id);
            if plan.is_some() {
                return plan;
            }
            // It asks again, if it still wants it.
            self.windows.get_mut(&id)?.wants = false;
        }
    }

    fn next_that_wants(&mut self) -> Option<u64> {
        let turn = self.turn;
        let wanting = |(id, window): (&u64, &Window)| window.wants.then_some(*id);
        let id = self.windows.range(turn + 1..).find_map(wanting);
        let id = id.or_else(|| self.windows.range(..=turn).find_map(wanting))?;
        self.turn = id;
        Some(id)
    }

    fn plan_for(&self, id: u64) -> Option<Plan> {
        let window = self.windows.get(&id)?;
        let (next, place) = (window.end().next(), window.place);
        let segment =
            self.holding(next).filter(|_| self.lost.as_ref().is_none_or(|lost| lost.upto < next))?.clone();
        let begin = Place { segment: segment.id, offset: RECORDS_AT, before: segment.before };
        let place = place.filter(|place| place.segment == segment.id && place.before.sequence.next() == next);
        Some(Plan { window: id, place: place.unwrap_or(begin), segment, next })
    }

    /// Whether a reader that waited has something now.
    fn fill(&mut self, plan: &Plan, in_memory: Sequence, read: Result<(Vec<Packet>, Place), String>) -> bool {
        // What was read of a segment that was given back meanwhile may be anything.
        let is_there = self.of_id(plan.segment.id).is_some();
        let Some(window) = self.windows.get_mut(&plan.window) else { return false };
        if !is_there || window.end().next() != plan.next {
            return false;
        }
        match read {
            Ok((packets, place)) => {
                let had_none = window.packets.is_empty();
                #[cfg(test)]
                let packets = planted_in(self.planted, plan, window, packets);
                for packet in packets {
                    window.bytes += cost(&packet);
                    window.packets.push_back(packet);
                }
                window.place = Some(place);
                window.wants = window.end().next() < in_memory && window.bytes < QUEUE_WINDOW;
                had_none
            }
            Err(why) => {
                window.wants = false;
                self.lose(plan.segment.id, &format!("it cannot be read: {why}"));
                false
            }
        }
    }

    /// Everything up to the end of a segment, of which some cannot be read.
    pub(super) fn lose(&mut self, id: u64, why: &str) {
        let Some(segment) = self.of_id(id).and_then(|at| self.segments.get_mut(at)) else { return };
        segment.is_sealed = true;
        let (upto, why) = (segment.last.sequence, format!("the queue on disk is given up: {why}"));
        log::error!("{why}; targets that have not applied what it held go on from the map");
        self.lost =
            Some(Lost { upto: self.lost.as_ref().map_or(upto, |lost| lost.upto.max(upto)), why: why.into() });
    }
}

impl Queue {
    /// Reads something for a window that wants it; whether one did. For one thread.
    pub fn read_step(&self) -> bool {
        let Some(overflow) = &self.overflow else { return false };
        let Some(plan) = self.tail.lock().disk.as_mut().and_then(OnDisk::plan_read) else { return false };
        let read = read(&plan, overflow.began, &overflow.buffers);
        let mut tail = self.tail.lock();
        let in_memory = tail.first_in_memory();
        let Some(disk) = &mut tail.disk else { return false };
        let wakes: WakeList = match disk.fill(&plan, in_memory, read) {
            true => tail.cursors.values().map(|cursor| cursor.wake.clone()).collect(),
            false => Vec::new(),
        };
        drop(tail);
        wakes.iter().for_each(|wake| wake(Haste::Now));
        true
    }
}

/// Some packets from the one that is wanted on, and where those behind them are.
///
/// Errors: one of those is damaged, or one before it in its segment.
fn read(plan: &Plan, began: Instant, buffers: &Pool) -> Result<(Vec<Packet>, Place), String> {
    let Plan { segment, next, .. } = plan;
    let mut place = plan.place;
    let damaged = |place: &Place, why: &str| {
        format!("{why} (after packet {}, at byte {})", place.before.sequence, place.offset)
    };
    let mut wanted = QUEUE_READ_BATCH as u64;
    loop {
        let left = segment.end.saturating_sub(place.offset);
        let mut buffer = Buffer::of(buffers, wanted.min(left) as usize);
        segment
            .file
            .read(buffer.as_mut(), place.offset)
            .map_err(|error| damaged(&place, &error.to_string()))?;
        let mut bytes = Bytes::from_owner(buffer);
        let mut packets = Vec::new();
        let needs = loop {
            match segment::parse(&bytes, &place.before, began) {
                Ok((packet, len)) => {
                    bytes = bytes.slice(len..);
                    (place.offset, place.before) = (place.offset + len as u64, packet.position);
                    if packet.position.sequence >= *next {
                        packets.push(packet);
                    }
                }
                Err(NoRecord::Needs(len)) => break len as u64,
                Err(NoRecord::Damaged(why)) => return Err(damaged(&place, &why)),
            }
        };
        if !packets.is_empty() {
            return Ok((packets, place));
        }
        if needs > segment.end.saturating_sub(place.offset) {
            return Err(damaged(&place, "a record ends behind its segment"));
        }
        wanted = needs.max(QUEUE_READ_BATCH as u64);
    }
}

/// What is read into: a long record needs one of its own.
enum Buffer {
    Recycled(pool::Buffer),
    Own(Vec<u8>),
}

impl Buffer {
    fn of(buffers: &Pool, len: usize) -> Buffer {
        if len <= PAYLOAD_LEN_MAX { Buffer::Recycled(buffers.filled(len)) } else { Buffer::Own(vec![0; len]) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Buffer::Recycled(buffer) => buffer.as_ref(),
            Buffer::Own(bytes) => bytes,
        }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Recycled(buffer) => buffer.as_mut(),
            Buffer::Own(bytes) => bytes,
        }
    }
}

/// Bugs that are planted on purpose.
#[cfg(test)]
fn planted_in(
    planted: Option<super::super::Planted>,
    plan: &Plan,
    window: &mut Window,
    mut packets: Vec<Packet>,
) -> Vec<Packet> {
    use super::super::Planted;
    match planted {
        Some(Planted::SkipsAtTheBorder)
            if plan.place.offset == RECORDS_AT && plan.next == plan.segment.first() =>
        {
            packets.remove(0);
            packets
        }
        Some(Planted::FillsOutOfOrder) if !window.packets.is_empty() => {
            for packet in packets.into_iter().rev() {
                window.bytes += cost(&packet);
                window.packets.push_front(packet);
            }
            Vec::new()
        }
        _ => packets,
    }
}
