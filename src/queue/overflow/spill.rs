//! From memory to disk: the oldest packets of memory, in their order.

use std::sync::Arc;

use super::super::list::{Queue, Tail};
use super::super::packet::Packet;
use super::super::segment::{self, RECORDS_AT};
use super::super::segment_files::{SegmentFile, SegmentFiles, trouble};
use super::{OnDisk, Overflow, Segment};
use crate::limits::QUEUE_SPILL_BATCH;

use crate::packet::{Position, Sequence};
use crate::words::DiskTrouble;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spilled {
    /// There was nothing to write.
    Nothing,
    Some,
    /// The disk takes nothing at this moment.
    Stuck,
}

/// What is to be written, and behind what.
struct Plan {
    /// Of the packet before the first one.
    before: Position,
    packets: Vec<Packet>,
    active: Option<Segment>,
    /// Of a new segment.
    next_id: u64,
}

/// What was written.
struct Written {
    segment: Segment,
    /// It was begun with this.
    is_new: bool,
}

impl Queue {
    /// Writes some of what memory holds to the disk, where that is much. For one thread.
    pub fn spill_step(&self) -> Spilled {
        let Some(overflow) = &self.overflow else { return Spilled::Nothing };
        let Some(plan) = self.tail.lock().plan_spill(overflow.spill_at) else { return Spilled::Nothing };
        let mut files = overflow.files.lock();
        let outcome = overflow.write(&mut files, &plan);
        drop(files);
        self.commit(&plan, outcome)
    }

    /// Gives back what no segment is in any more, and looks how much room there is on the disk.
    pub fn look_at_disk(&self) {
        let Some(overflow) = &self.overflow else { return };
        let freed = self.tail.lock().disk.as_mut().map(|disk| std::mem::take(&mut disk.freed));
        let mut files = overflow.files.lock();
        freed.into_iter().flatten().for_each(|file| files.give_back(file));
        let (bytes, capacity, is_in_the_way) = (files.bytes(), files.capacity(), files.is_in_the_way());
        drop(files);
        let mut tail = self.tail.lock();
        let Some(disk) = &mut tail.disk else { return };
        disk.file_bytes = bytes;
        if is_in_the_way {
            disk.make_way();
        }
        match capacity {
            Ok(capacity) => {
                disk.capacity = capacity;
                // What it would take nobody knows while nothing is to be written.
                if !disk.spills {
                    disk.trouble = None;
                }
            }
            Err(trouble) => disk.is_in(trouble),
        }
        let is_stuck = disk.trouble.is_some();
        drop(tail);
        if is_stuck {
            self.tell_of_waits();
        }
    }

    fn commit(&self, plan: &Plan, outcome: Result<Written, DiskTrouble>) -> Spilled {
        let mut tail = self.tail.lock();
        let (disk, active) = (tail.disk.as_mut().expect("it has a disk"), plan.active.as_ref());
        disk.is_written = false;
        let spilled = match outcome {
            Ok(written) => {
                let upto = written.segment.last.sequence;
                disk.adopt(written);
                Some(tail.leave_memory(upto))
            }
            Err(trouble) => {
                disk.is_in(trouble);
                let failed =
                    disk.segments.back_mut().filter(|last| active.is_some_and(|active| active.id == last.id));
                // What stands behind its end is not known.
                failed.into_iter().for_each(|segment| segment.is_sealed = true);
                #[cfg(test)]
                if disk.planted == Some(super::super::Planted::ForgetsWhatWasNotWritten) {
                    disk.pretend_written(plan);
                    let upto = plan.packets.last().expect("there was something to write").position.sequence;
                    let (bytes, _) = tail.leave_memory(upto);
                    drop(tail);
                    self.release(bytes);
                    return Spilled::Stuck;
                }
                None
            }
        };
        let trimmed = tail.trim();
        drop(tail);
        self.release_trimmed(trimmed);
        let Some((bytes, packets)) = spilled else {
            self.tell_of_waits();
            return Spilled::Stuck;
        };
        drop(packets);
        if bytes > 0 {
            self.release(bytes);
        }
        Spilled::Some
    }
}

impl Tail {
    fn plan_spill(&mut self, spill_at: usize) -> Option<Plan> {
        let (held, front) = (self.held_bytes, self.packets.front().map(|packet| packet.position.sequence));
        let disk = self.disk.as_mut()?;
        disk.spills = match disk.spills_all {
            true => held > 0,
            false => held > spill_at || disk.spills && held > spill_at / 2,
        };
        if !disk.spills {
            return None;
        }
        let last = disk.segments.back();
        assert!(
            last.is_none_or(|last| Some(last.last.sequence.next()) == front),
            "memory does not go on where the disk ends"
        );
        let active = last.filter(|last| !last.is_sealed).cloned();
        disk.is_written = true;
        let mut bytes = 0;
        let mut packets = Vec::new();
        for packet in &self.packets {
            packets.push(packet.clone());
            bytes += segment::record_len(packet);
            if bytes >= QUEUE_SPILL_BATCH {
                break;
            }
        }
        Some(Plan { before: self.before_memory, packets, active, next_id: disk.next_id })
    }
}

impl OnDisk {
    /// Whoever has not applied what is on disk goes on from the map: the disk is full, and not with the queue alone.
    fn make_way(&mut self) {
        let lost = self.lost.as_ref().map_or(Sequence(0), |lost| lost.upto);
        let last = self.segments.back().filter(|last| last.last.sequence > lost).map(|last| last.id);
        if let Some(last) = last {
            self.lose(last, "the disk that it shares with others is full");
        }
    }

    pub(super) fn is_in(&mut self, trouble: DiskTrouble) {
        if self.trouble.replace(trouble) != Some(trouble) {
            log::warn!("nothing of the queue is written to disk: {trouble}");
        }
    }

    /// A planted bug.
    #[cfg(test)]
    fn pretend_written(&mut self, plan: &Plan) {
        let last = plan.packets.last().expect("there was something to write").position;
        if let Some(segment) = self.segments.back_mut() {
            self.bytes += 100;
            (segment.last, segment.end) = (last, segment.end + 100);
        }
    }

    fn adopt(&mut self, Written { segment, is_new }: Written) {
        if self.trouble.take().is_some() {
            log::info!("the queue is written to disk again");
        }
        if is_new {
            assert_eq!(segment.id, self.next_id, "numbers go with the order");
            self.next_id += 1;
            self.bytes += segment.end;
            return self.segments.push_back(segment);
        }
        let last = self.segments.back_mut().expect("what is written is not trimmed");
        assert_eq!(last.id, segment.id, "another segment was written");
        self.bytes += segment.end - last.end;
        (last.last, last.end) = (segment.last, segment.end);
    }
}

impl Overflow {
    /// Errors: nothing that is believed was written.
    fn write(&self, files: &mut SegmentFiles, plan: &Plan) -> Result<Written, DiskTrouble> {
        let first = plan.packets.first().expect("there is something to write");
        let fits =
            |segment: &&Segment| segment.end + segment::record_len(first) as u64 <= files.segment_len();
        let active = plan.active.as_ref().filter(fits);
        let is_new = active.is_none();
        let segment = match active {
            Some(active) => active.clone(),
            None => begun(files.take()?, plan),
        };
        match self.write_to(segment.clone(), plan, files.segment_len()) {
            Ok(segment) => Ok(Written { segment, is_new }),
            Err(error) => {
                if is_new {
                    files.give_back(segment.file);
                }
                Err(trouble(error))
            }
        }
    }

    /// As many packets as the segment has room for.
    fn write_to(&self, mut segment: Segment, plan: &Plan, len: u64) -> std::io::Result<Segment> {
        let all: usize = plan.packets.iter().map(segment::record_len).sum();
        let (mut bytes, mut at) = (Vec::with_capacity(all + RECORDS_AT as usize), segment.end);
        if at == RECORDS_AT {
            bytes.extend_from_slice(&segment::header(&segment.before, segment.id));
            at = 0;
        }
        for packet in &plan.packets {
            if segment.end + segment::record_len(packet) as u64 > len {
                break;
            }
            assert!(packet.position.follows(&segment.last), "a segment has no gap");
            segment::put(&mut bytes, packet, self.began);
            segment.end += segment::record_len(packet) as u64;
            segment.last = packet.position;
        }
        assert_eq!(at + bytes.len() as u64, segment.end, "what is written is as long as its records");
        segment.file.write(&bytes, at)?;
        Ok(segment)
    }
}

fn begun(file: Arc<SegmentFile>, plan: &Plan) -> Segment {
    Segment {
        id: plan.next_id,
        file,
        before: plan.before,
        last: plan.before,
        end: RECORDS_AT,
        is_sealed: false,
    }
}
