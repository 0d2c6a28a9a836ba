//! What a log has on disk: a document that says which generations count, and a file for each.
//!
//! ```text
//! activity.json   which run, whether whole, which generations: the oldest first
//! activity.N      a generation (`record`), of a fixed length, all of it written before it counts
//! ```

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::record::{Entry, HEAD, Head, HotObject, RECORD};
use crate::limits::ACTIVITY_RECORDS;
use crate::packet::{Incarnation, Sequence, Timestamp};
use crate::store;

const DOCUMENT: &str = "activity.json";
/// Generation of what was hot before this run, and is owed to targets still.
const CARRIED: u64 = 0;
const LEN: usize = HEAD + ACTIVITY_RECORDS as usize * RECORD;

/// What the log says that a run has left.
#[derive(Clone, Debug)]
pub struct Found {
    /// All that was hot. An error: the log is not whole, and why.
    pub all: Result<Known, String>,
    /// What that run itself had been told of the one before. An error: it is lost.
    pub carried: Result<Known, String>,
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub hot: Vec<HotObject>,
    /// What was born, or has changed, at this moment or later is hot without a record.
    pub since: Timestamp,
    /// The last packet that may have been sent.
    pub ceiling: Sequence,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    run: Incarnation,
    log: u64,
    /// No change has passed it.
    whole: bool,
    /// Why not.
    why: String,
    generations: Vec<u64>,
}

/// The files of a log that is kept.
pub(super) struct Files {
    dir: PathBuf,
    document: Document,
}

/// A generation that is written to.
pub(super) struct Generation {
    file: File,
    pub head: Head,
    written: u32,
}

/// Which generation of which log the source's own disk knows as the newest one ([`super::Outside::mark`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    pub log: u64,
    pub generation: u64,
}

/// Reads what the run has left that was the last one. Nothing is changed.
pub fn look(dir: &Path, last_run: Option<Incarnation>, marked: Option<Marked>) -> Found {
    let document = match store::read_json::<Document>(&dir.join(DOCUMENT)) {
        Ok(Some(document)) if Some(document.run) == last_run => document,
        Ok(Some(_)) => return Found::nothing("the last run has kept none"),
        Ok(None) => return Found::nothing("there is none"),
        Err(error) => return Found::nothing(&format!("it cannot be read: {error}")),
    };
    let of = |numbers: &[u64]| known(dir, document.log, numbers);
    let carried = match document.generations.contains(&CARRIED) {
        true => of(&[CARRIED]),
        false => Err("nothing was owed".into()),
    };
    let all = match (document.whole, marked) {
        (false, _) => Err(document.why),
        (true, None) => Err("it was taken back: its disk had failed".into()),
        (true, Some(marked)) if marked.log != document.log => {
            Err("the directory's disk and the log's are not of one time".into())
        }
        // An older one: that disk was put back to before the sync that the log leans on.
        (true, Some(Marked { generation, .. }))
            if generation == CARRIED || !document.generations.contains(&generation) =>
        {
            Err("the directory's disk and the log's are not of one time".into())
        }
        (true, Some(_)) => of(&document.generations),
    };
    Found { all, carried }
}

/// Removes what is there: nothing is known any more.
pub fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn known(dir: &Path, log: u64, numbers: &[u64]) -> Result<Known, String> {
    let mut known: Option<Known> = None;
    for &number in numbers {
        let damaged = |what: &str| format!("its generation {number} {what}");
        let mut raw = Vec::with_capacity(LEN);
        let opened = File::open(path(dir, number));
        let read = opened.and_then(|file| file.take(LEN as u64 + 1).read_to_end(&mut raw));
        read.map_err(|error| damaged(&format!("cannot be read: {error}")))?;
        let head = Head::decode(&raw).filter(|head| (head.log, head.generation) == (log, number));
        let head = head.filter(|_| raw.len() == LEN).ok_or_else(|| damaged("is damaged"))?;
        let entries = head.recover(&raw[HEAD..]).map_err(|_| damaged("is damaged"))?;
        let known = known.get_or_insert(Known { since: head.begins, ..Known::default() });
        known.since = known.since.min(head.begins);
        for entry in entries {
            match entry {
                Entry::Hot(object) => known.hot.push(object),
                // The last one: it may go back, too.
                Entry::Ceiling(upto) => known.ceiling = upto,
            }
        }
    }
    let mut known = known.ok_or_else(|| "it has no generation".to_owned())?;
    let mut seen = HashSet::new();
    known.hot.retain(|object| seen.insert(object.id));
    match known.hot.len() <= ACTIVITY_RECORDS as usize {
        true => Ok(known),
        // They would not fit into the next one.
        false => Err("too much is in it".into()),
    }
}

impl Found {
    fn nothing(why: &str) -> Found {
        Found { all: Err(why.into()), carried: Err(why.into()) }
    }
}

impl Files {
    /// A log of this run, which is not whole. What was there before goes, once `carried` is there.
    pub fn begin(
        dir: &Path,
        run: Incarnation,
        log: u64,
        carried: Option<&Known>,
    ) -> io::Result<(Files, Generation)> {
        drop(store::own_directory(dir, 0o700, store::Symlink::Own)?);
        let before = numbers(dir)?;
        // Numbers that no file of an earlier log has: its document counts until it is replaced.
        let first = before.iter().max().map_or(1, |last| last + 1);
        let current = Generation::make(dir, Head { log, generation: first, begins: now() })?;
        let mut generations = vec![first];
        if let Some(known) = carried {
            let head = Head { log, generation: CARRIED, begins: known.since };
            // The one that is there may be what it is made of: that is read already, and is not needed any more
            // when the document names this log.
            Generation::make_of(dir, head, &known.hot)?;
            generations.insert(0, CARRIED);
        }
        let why = "what was changed before the start was not on the disk yet".to_owned();
        let document = Document { run, log, whole: false, why, generations };
        let files = Files { dir: dir.to_owned(), document };
        files.save()?;
        for number in before.into_iter().filter(|number| !files.document.generations.contains(number)) {
            fs::remove_file(path(dir, number))?;
        }
        Ok((files, current))
    }

    /// The next generation, which does not count before [`Files::add`].
    pub fn make_next(&self) -> io::Result<Generation> {
        let generation = self.last() + 1;
        Generation::make(&self.dir, Head { log: self.document.log, generation, begins: now() })
    }

    fn last(&self) -> u64 {
        *self.document.generations.last().expect("a log has a generation")
    }

    pub fn add(&mut self, next: &Generation) -> io::Result<()> {
        let mut generations = self.document.generations.clone();
        generations.push(next.head.generation);
        self.replace(Document { generations, ..self.document.clone() })
    }

    pub fn is_whole(&self) -> bool {
        self.document.whole
    }

    /// Why it is not whole.
    pub fn why(&self) -> &str {
        &self.document.why
    }

    pub fn say_not_whole(&mut self, why: &str) -> io::Result<()> {
        if !self.document.whole && self.document.why == why {
            return Ok(());
        }
        self.replace(Document { whole: false, why: why.to_owned(), ..self.document.clone() })
    }

    /// Those before the last one go, but for what is carried; `whole`: and nothing has passed it since that began.
    pub fn keep_the_last(&mut self, whole: bool) -> io::Result<()> {
        let last = self.last();
        self.keep(|number| number == CARRIED || number == last, whole)
    }

    pub fn drop_carried(&mut self) -> io::Result<()> {
        let whole = self.document.whole;
        self.keep(|number| number != CARRIED, whole)
    }

    fn keep(&mut self, keeps: impl Fn(u64) -> bool, whole: bool) -> io::Result<()> {
        let (generations, gone): (Vec<u64>, Vec<u64>) =
            self.document.generations.iter().partition(|number| keeps(**number));
        if gone.is_empty() && whole == self.document.whole {
            return Ok(());
        }
        let why = if whole { String::new() } else { self.document.why.clone() };
        self.replace(Document { generations, whole, why, ..self.document.clone() })?;
        for number in gone {
            fs::remove_file(path(&self.dir, number))?;
        }
        Ok(())
    }

    /// On disk, then here.
    fn replace(&mut self, document: Document) -> io::Result<()> {
        let files = Files { dir: self.dir.clone(), document };
        files.save()?;
        self.document = files.document;
        Ok(())
    }

    fn save(&self) -> io::Result<()> {
        store::replace_json(&self.dir.join(DOCUMENT), &self.document)
    }
}

impl Generation {
    /// All of it is on the disk: what is written into it later has no metadata to write.
    fn make(dir: &Path, head: Head) -> io::Result<Generation> {
        Generation::make_of(dir, head, &[])
    }

    fn make_of(dir: &Path, head: Head, hot: &[HotObject]) -> io::Result<Generation> {
        if hot.len() > ACTIVITY_RECORDS as usize {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "more is hot than a generation has room for",
            ));
        }
        let mut raw = Vec::with_capacity(LEN);
        raw.extend_from_slice(&head.encode());
        for (object, number) in hot.iter().zip(0..) {
            raw.extend_from_slice(&head.record(number, 0, &Entry::Hot(*object)));
        }
        raw.resize(LEN, 0);
        let path = path(dir, head.generation);
        let new = path.with_extension("new");
        // A full disk gets back what there was room for.
        let file = write_new(&new, &raw).inspect_err(|_| drop(fs::remove_file(&new)))?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Generation { file, head, written: hot.len() as u32 })
    }

    pub fn written(&self) -> u32 {
        self.written
    }

    /// How many more fit.
    pub fn room(&self) -> usize {
        (ACTIVITY_RECORDS - self.written) as usize
    }

    /// Durable when it returns.
    pub fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        assert!(entries.len() <= self.room(), "more is written than there is room for");
        let first = self.written;
        let records =
            entries.iter().zip(first..).map(|(entry, number)| self.head.record(number, first, entry));
        let raw: Vec<u8> = records.flatten().collect();
        self.file.write_all_at(&raw, (HEAD + first as usize * RECORD) as u64)?;
        self.file.sync_data()?;
        self.written += entries.len() as u32;
        Ok(())
    }
}

/// On the disk.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("activity.{number}"))
}

/// Of the generations that lie there, whatever they are worth.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.strip_prefix("activity.")?.parse().ok();
    Ok(entries.iter().filter_map(number).collect())
}

/// By the clock that stamps what is born.
fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
}
