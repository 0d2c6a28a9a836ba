//! What fills files, and the thread that does it.

use std::os::fd::AsFd;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use super::{Back, Job};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::Writer;
use crate::failpoint;
use crate::packet::{Attributes, Owner, XattrName};
use crate::xattr::{Flags, OWN_PREFIX, is_replicated};

/// `false`: it is not as a copy makes it, or not all went well; what was done is done again.
fn fill(job: &Job, writer: &Writer) -> Result<bool, Fault> {
    let file = job.file.as_fd();
    let status = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let status = status.map_err(Fault::system("stat"))?;
    let mode = u32::from(status.stx_mode);
    let is_private = (status.stx_uid, status.stx_gid, mode & 0o7077) == (0, 0, 0);
    let is_empty = FileType::from_raw_mode(mode) == FileType::RegularFile && status.stx_size == 0;
    // Of the directory that it is in it may have an ACL. A label of the host is none of ours.
    let is_ours = |name: &XattrName| is_replicated(&name.0) || name.0.starts_with(OWN_PREFIX);
    let is_plain = Flags::in_status(&status) == Flags::NONE && !inode::list_xattrs(file)?.iter().any(is_ours);
    if !(is_private && is_empty && is_plain) {
        return Ok(false);
    }
    failpoint::at("content").map_err(Fault::system("write"))?;
    writer.write_all_at(&job.file, &job.bytes, 0).map_err(Fault::system("write"))?;
    let Attributes { uid, gid, .. } = job.attributes;
    if (uid, gid) != (0, 0) {
        inode::set_owner(file, Owner { uid, gid })?;
    }
    failpoint::at("owner").map_err(Fault::own("chown"))?;
    if mode & 0o7777 != job.mode & 0o7777 {
        inode::set_mode_of(FileType::RegularFile, file, job.mode)?;
    }
    Ok(true)
}

fn fill_all(batch: Vec<Job>, writer: &Writer) -> Vec<Back> {
    let fill_one = |job| {
        let is_done = fill(&job, writer).unwrap_or(false);
        Back { job, is_done }
    };
    batch.into_iter().map(fill_one).collect()
}

/// What fills files, awaited when it is dropped: nobody has the replica open then.
pub(super) enum Thread {
    Beside {
        /// None at its end.
        jobs: Option<Sender<Vec<Job>>>,
        back: Receiver<Vec<Back>>,
        thread: Option<JoinHandle<()>>,
    },
    /// In tests that say when what happens: when it is waited for.
    #[cfg(test)]
    InTime { jobs: std::cell::RefCell<Vec<Job>>, writer: Writer },
}

impl Thread {
    pub(super) fn begin(writer: Writer) -> std::io::Result<Thread> {
        #[cfg(test)]
        if !super::tests::are_filled(super::tests::Where::OnAThread) {
            return Ok(Thread::InTime { jobs: std::cell::RefCell::default(), writer });
        }
        let (jobs, come) = unbounded::<Vec<Job>>();
        let (done, back) = unbounded();
        let fill = move || {
            for batch in come {
                if done.send(fill_all(batch, &writer)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("fill".into()).spawn(fill)?;
        Ok(Thread::Beside { jobs: Some(jobs), back, thread: Some(thread) })
    }

    /// Gives back what could not be sent.
    pub(super) fn send(&self, batch: Vec<Job>) -> Vec<Job> {
        match self {
            Thread::Beside { jobs, .. } => {
                let jobs = jobs.as_ref().expect("it has not ended");
                jobs.send(batch).map_or_else(|unsent| unsent.into_inner(), |()| Vec::new())
            }
            #[cfg(test)]
            Thread::InTime { jobs, .. } => {
                jobs.borrow_mut().extend(batch);
                Vec::new()
            }
        }
    }

    pub(super) fn receive(&self, waits: bool) -> Option<Vec<Back>> {
        match self {
            Thread::Beside { back, .. } if waits => {
                Some(back.recv().expect("the thread that fills files lives as long as it is waited for"))
            }
            Thread::Beside { back, .. } => back.try_recv().ok(),
            #[cfg(test)]
            Thread::InTime { jobs, writer } => {
                waits.then(|| fill_all(std::mem::take(&mut jobs.borrow_mut()), writer))
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        match self {
            Thread::Beside { jobs, thread, .. } => {
                *jobs = None;
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            #[cfg(test)]
            Thread::InTime { .. } => {}
        }
    }
}
