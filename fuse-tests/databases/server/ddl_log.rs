//! MariaDB's log of DDL statements, as far as a copy must be judged by it.
//!
//! `DROP TABLE` writes its entry, syncs, and only then links the entry to the chain that a recovery
//! executes; the link is not synced (`ddl_log_drop` in `sql/ddl_log.cc`). Where writes are gathered,
//! as on a local disk, a cut before the next sync leaves the entry without its link: InnoDB has
//! dropped the table, and nothing tells the recovery that the `.frm` must go, too.

use std::fs;
use std::path::Path;

/// Blocks of the log; the first is its header.
const BLOCK: usize = 4096;
/// `DDL_LOG_EXECUTE_CODE`: recovery begins with the block that this one names.
const EXECUTE: u8 = 1;
/// `DDL_LOG_DROP_INIT_ACTION`: a statement that drops, without any table.
const DROP_INIT: u8 = 7;
/// `DDL_LOG_ACTION_TYPE_POS`, `DDL_LOG_NEXT_ENTRY_POS`.
const ACTION_AT: usize = 1;
const NEXT_AT: usize = 4;

/// Whether a statement that drops was cut before what it drops was linked to it.
pub fn drops_nothing_yet(data: &Path) -> bool {
    fs::read(data.join("ddl_recovery.log")).is_ok_and(|log| ends_at_init(&log))
}

fn ends_at_init(log: &[u8]) -> bool {
    let blocks: Vec<&[u8]> = log.chunks_exact(BLOCK).collect();
    blocks.iter().skip(1).filter(|block| block[0] == EXECUTE).any(|execute| {
        let first = blocks.get(next(execute)).filter(|_| next(execute) != 0);
        first.is_some_and(|first| first[ACTION_AT] == DROP_INIT && next(first) == 0)
    })
}

fn next(block: &[u8]) -> usize {
    let bytes = block[NEXT_AT..NEXT_AT + 4].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

#[test]
fn a_drop_without_its_link_is_seen() {
    let log = |link: u8| {
        let mut log = vec![0; 4 * BLOCK];
        (log[BLOCK], log[BLOCK + NEXT_AT]) = (EXECUTE, 2);
        (log[2 * BLOCK], log[2 * BLOCK + ACTION_AT], log[2 * BLOCK + NEXT_AT]) = (2, DROP_INIT, link);
        (log[3 * BLOCK], log[3 * BLOCK + ACTION_AT]) = (2, DROP_INIT + 1);
        log
    };
    assert!(ends_at_init(&log(0)));
    assert!(!ends_at_init(&log(3)));
    let mut done = log(0);
    done[BLOCK] = b'i';
    assert!(!ends_at_init(&done) && !ends_at_init(&[]));
}
