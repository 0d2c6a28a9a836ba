//! What is measured, by name.

use std::fmt;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Line {
    /// 1 MiB sequential writes into a new file
    #[value(name = "write-1m")]
    Write1M,
    /// 128 KiB sequential writes into a new file
    #[value(name = "write-128k")]
    Write128K,
    /// 4 KiB sequential writes into a new file
    #[value(name = "write-4k")]
    Write4K,
    /// 4 KiB sequential writes by two threads, each into a new file
    #[value(name = "write-4k-x2")]
    Write4KByTwo,
    /// 4 KiB sequential writes by four threads, each into a new file
    #[value(name = "write-4k-x4")]
    Write4KByFour,
    /// 4 KiB appends, no fsync
    #[value(name = "append-4k")]
    Append4K,
    /// 4 KiB writes at random offsets, handle open for reading and writing
    #[value(name = "random-4k")]
    Random4K,
    /// 4 KiB appends, an fsync after each
    #[value(name = "fsync-4k")]
    Fsync4K,
    /// Create a file, write 4 KiB, close
    Create,
    /// stat of known files
    Stat,
    /// Open a small file, read it, close
    Open,
    /// Remove small files
    Unlink,
    /// 1 MiB sequential reads of a file that no cache holds
    ColdRead,
    /// 4 KiB random reads of cached data, handle open for reading and writing
    WarmReadRw,
    /// 4 KiB random reads of cached data, handle open for reading
    WarmReadRo,
    /// The system calls of an SQLite commit: write-ahead log, synchronous=NORMAL
    #[value(name = "commit-calls")]
    CommitCalls,
    /// Commits by sqlite3 itself, its start included
    Sqlite,
    /// git status of a tree that has not changed
    GitStatus,
    /// Unpack a source tree with tar
    Unpack,
    /// Remove it with rm -r
    RemoveTree,
    /// Copy it with cp -a
    CopyTree,
    /// Compile small C files with cc, one after the other
    Compile,
}

/// In what the work of a line is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Ops,
}

impl Line {
    pub fn all() -> &'static [Line] {
        Line::value_variants()
    }

    /// As the table says it.
    pub fn title(self) -> &'static str {
        match self {
            Line::Write1M => "1 MiB sequential write",
            Line::Write128K => "128 KiB sequential write",
            Line::Write4K => "4 KiB sequential write",
            Line::Write4KByTwo => "4 KiB sequential write, 2 writers",
            Line::Write4KByFour => "4 KiB sequential write, 4 writers",
            Line::Append4K => "4 KiB append",
            Line::Random4K => "4 KiB random write (O_RDWR)",
            Line::Fsync4K => "4 KiB append + fsync",
            Line::Create => "create + write 4 KiB + close",
            Line::Stat => "stat, warm",
            Line::Open => "open + read 4 KiB + close",
            Line::Unlink => "unlink",
            Line::ColdRead => "1 MiB sequential read, cold",
            Line::WarmReadRw => "4 KiB read, warm (O_RDWR)",
            Line::WarmReadRo => "4 KiB read, warm (O_RDONLY)",
            Line::CommitCalls => "SQLite commit (WAL, NORMAL), its calls",
            Line::Sqlite => "SQLite commit (WAL, NORMAL), sqlite3",
            Line::GitStatus => "git status",
            Line::Unpack => "unpack a tree (tar), files",
            Line::RemoveTree => "remove a tree (rm -r), files",
            Line::CopyTree => "copy a tree (cp -a), files",
            Line::Compile => "compile (cc -c), files",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Line::Write1M
            | Line::Write128K
            | Line::Write4K
            | Line::Write4KByTwo
            | Line::Write4KByFour
            | Line::Append4K
            | Line::ColdRead => Unit::Bytes,
            Line::Random4K
            | Line::Fsync4K
            | Line::Create
            | Line::Stat
            | Line::Open
            | Line::Unlink
            | Line::WarmReadRw
            | Line::WarmReadRo
            | Line::CommitCalls
            | Line::Sqlite
            | Line::GitStatus
            | Line::Unpack
            | Line::RemoveTree
            | Line::CopyTree
            | Line::Compile => Unit::Ops,
        }
    }

    /// Whether it fills as much of the page cache as a big file is long: memory that the kernel has
    /// to find first can cost more than the work.
    pub fn fills_memory(self) -> bool {
        self.unit() == Unit::Bytes
    }

    /// The program that it needs.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Line::Sqlite => Some("sqlite3"),
            Line::GitStatus => Some("git"),
            Line::Unpack | Line::RemoveTree | Line::CopyTree => Some("tar"),
            Line::Compile => Some("cc"),
            _ => None,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Unit {
    /// The name of the rate, and how much work makes one of it.
    pub fn rate(self) -> (&'static str, f64) {
        match self {
            Unit::Bytes => ("MiB/s", (1 << 20) as f64),
            Unit::Ops => ("ops/s", 1.0),
        }
    }

    /// In what processor time is said, and what seconds for one byte or op are multiplied with.
    pub fn cpu(self) -> (&'static str, f64) {
        match self {
            Unit::Bytes => ("s/GiB", (1 << 30) as f64),
            Unit::Ops => ("us/op", 1e6),
        }
    }
}
