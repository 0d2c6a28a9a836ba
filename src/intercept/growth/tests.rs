use super::*;

const PIECE: u64 = FUSE_WRITE_LEN_MAX as u64;

fn growing(writer: u32, offset: u64, end: u64) -> Growing {
    Growing { writer, handle: Some(1), offset, end }
}

fn ask(growth: &mut Growth) {
    growth.asked.push(Box::new(|_| ()));
}

#[test]
fn the_next_change_proves_the_last() {
    let mut growth = Growth::default();
    assert!(growth.begin(growing(7, 0, 100), 0).is_empty());
    ask(&mut growth);
    assert_eq!(growth.begin(growing(7, 100, 200), 100).len(), 1);
    assert_eq!(growth.pending.map(|pending| pending.change), Some(growing(7, 100, 200)));
    // One that does not grow leaves nothing to wait for.
    assert!(growth.begin(growing(8, 0, 50), 200).is_empty());
    assert_eq!(growth.pending, None);
}

#[test]
fn a_piece_of_the_same_write_proves_nothing() {
    let mut growth = Growth::default();
    growth.begin(growing(7, 0, PIECE), 0);
    ask(&mut growth);
    assert!(growth.begin(growing(7, PIECE, 2 * PIECE), PIECE).is_empty());
    assert!(growth.begin(growing(7, 2 * PIECE, 2 * PIECE + 10), 2 * PIECE).is_empty());
    assert_eq!(growth.begin(growing(7, 2 * PIECE + 10, 2 * PIECE + 20), 2 * PIECE + 10).len(), 1);
    // Another thread's write at the same place is another call.
    growth.begin(growing(7, 0, 4 * PIECE), 0);
    ask(&mut growth);
    assert_eq!(growth.begin(growing(9, 4 * PIECE, 5 * PIECE), 4 * PIECE).len(), 1);
}

/// While a call goes on for half a second something is told; which pieces are one call nobody says, and what
/// has returned must not be missed.
#[test]
fn of_a_call_that_lasts_the_size_before_its_last_piece_is_known() {
    let mut growth = Growth::default();
    growth.begin(growing(7, 10, 10 + PIECE), 10);
    growth.begin(growing(7, 10 + PIECE, 10 + 2 * PIECE), 10 + PIECE);
    let pending = growth.pending.unwrap();
    assert_eq!((pending.before, pending.lasts(), pending.is_old()), (10 + PIECE, false, false));
    let early = Instant::now().checked_sub(PATIENCE_WITH_CALL).unwrap();
    let late = Pending { began: early, ..pending };
    assert!(late.lasts() && !late.is_old(), "its writer sleeps");
    // Answered: the next piece may come in a moment, or the call has ended and its writer told others.
    let answered = Pending { answered: Some(Instant::now()), ..late };
    assert!(!answered.lasts() && !answered.is_old());
    let end = 10 + 2 * PIECE;
    assert!(answered.is_in(Some(end)) && !answered.is_in(Some(end - 1)) && !answered.is_in(None));
    assert!(!late.is_in(Some(end)), "it is not answered yet");
    let idle = Pending { answered: Some(early), ..late };
    assert!(idle.lasts() && idle.is_old(), "no further piece came");
    growth.begin(growing(8, 50, 60), 50);
    assert_eq!(growth.pending.map(|pending| pending.before), Some(50));
}

/// A writer that was killed in its call leaves the kernel without the size: it takes what it is told. Of one that waits
/// for a page of its memory the disk's size was told, which the kernel did not have.
#[test]
fn only_a_writer_that_is_gone_leaves_the_size_to_the_disk() {
    let idle = |writer| Pending {
        change: growing(writer, 0, PIECE),
        before: 0,
        began: Instant::now(),
        answered: Instant::now().checked_sub(PATIENCE_WITH_CALL),
        had_run: None,
    };
    let gone = std::thread::spawn(this_thread).join().unwrap();
    let began = Instant::now();
    while Thread::is_there(gone) {
        assert!(began.elapsed() < Duration::from_secs(20), "a thread that was joined stays");
    }
    assert!(!idle(this_thread()).is_over(Some(0)), "it is late with a further piece");
    assert!(idle(this_thread()).is_over(None) && idle(gone).is_over(Some(0)) && idle(0).is_over(Some(0)));
    let early = Pending { answered: Some(Instant::now()), ..idle(gone) };
    assert!(!early.is_over(None));
}

fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

#[test]
fn a_sleeper_is_seen_and_a_runner_too() {
    let (tell, told) = std::sync::mpsc::channel();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let sleeper = std::thread::spawn(move || {
        tell.send(this_thread()).unwrap();
        let _ = held.recv();
    });
    let answered = |writer| Pending {
        change: growing(writer, 0, 100),
        before: 0,
        began: Instant::now(),
        answered: Some(Instant::now()),
        had_run: None,
    };
    let eventually = |pending: &mut Pending| {
        let began = Instant::now();
        while !pending.look() {
            assert!(began.elapsed() < Duration::from_secs(20), "never seen");
        }
    };
    let mut pending = answered(told.recv().unwrap());
    eventually(&mut pending);
    drop(release);
    sleeper.join().unwrap();
    // This thread runs: the first look cannot know that, a later one does.
    let mut pending = answered(this_thread());
    assert!(!pending.look());
    eventually(&mut pending);
    assert!(!answered(0).look(), "nobody is seen");
    assert!(!Pending { answered: None, ..pending }.look(), "it sleeps for its answer");
}
