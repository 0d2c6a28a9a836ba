//! Where `standin events run` stands with each daemon, and which calls wait: one document on disk.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::events::{Calls, Watch};
use crate::store;

/// As it is on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    pub watch: Watch,
    pub calls: Calls,
}

/// One that is damaged is put aside: hooks that are called again, or for less, are better than none.
pub(super) fn read_book(path: &Path) -> io::Result<Book> {
    let error = match store::read_json::<Book>(path) {
        Ok(book) => return Ok(book.unwrap_or_default()),
        Err(error) => error,
    };
    let is_damaged = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    if !is_damaged {
        return Err(error);
    }
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)?;
    log::error!(
        "{} is damaged ({error}) and was put aside as {}: events that lasted may come again, those of before are not \
         told, and calls that waited are not made",
        path.display(),
        aside.display()
    );
    Ok(Book::default())
}
