//! A link within one process: everything that the network's does, without the network.

use super::*;
use crate::limits::DIRECT_MESSAGES_MAX;

fn pair() -> (SourceLink, TargetLink, Frames) {
    let frames = Frames::default();
    let (source, target) = direct(frames.clone());
    assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
    (source, target, frames)
}

fn is_idle(received: &FrameReceiver) -> bool {
    matches!(received.recv(Duration::from_millis(5)), Received::Idle)
}

#[test]
fn nothing_comes_before_start_and_welcome_and_then_all_in_order() {
    let (source, target, frames) = pair();
    let received = target.frames();
    let size = |n: u64| [0, 1, 5000, 300_000][n as usize % 4];
    (0..50).for_each(|n| frames.push(frame(n, payload(n, size(n)))));
    assert!(is_idle(&received));
    source.start_feed(Features::OFFERED);
    assert!(is_idle(&received));
    target.welcome();
    for n in 0..100 {
        if n == 40 {
            (50..100).for_each(|n| frames.push(frame(n, payload(n, size(n)))));
            source.waker().wake();
        }
        let frame = next(&received);
        assert_eq!((frame.position.sequence, frame.payload), (Sequence(n), payload(n, size(n))));
    }
    assert!(is_idle(&received));
}

/// However it falls against the rests of the taker, no wake is lost.
#[test]
fn frames_one_at_a_time_arrive_without_more_behind_them() {
    let (source, target, frames) = pair();
    source.start_feed(Features::OFFERED);
    target.welcome();
    let (received, waker) = (target.frames(), source.waker());
    let writer = std::thread::spawn(move || {
        for n in 0..3000u64 {
            frames.push(frame(n, Bytes::new()));
            waker.wake();
            if n % 7 == 0 {
                std::thread::sleep(Duration::from_micros(n * 13 % 2300));
            }
        }
    });
    for n in 0..3000 {
        assert_eq!(next(&received).position.sequence, Sequence(n));
    }
    writer.join().unwrap();
}

#[test]
fn news_end_a_wait_and_frames_go_before_them() {
    let (source, target, frames) = pair();
    source.start_feed(Features::OFFERED);
    target.welcome();
    let (tell, news) = crossbeam_channel::bounded(1);
    tell.send(()).unwrap();
    frames.push(frame(1, Bytes::new()));
    let received = target.frames();
    assert!(matches!(received.recv_or_news(LONG, &news), Received::Frame(_)));
    assert!(matches!(received.recv_or_news(LONG, &news), Received::Idle));
    news.recv().unwrap();
    frames.push(frame(2, Bytes::new()));
    source.waker().wake();
    assert!(matches!(received.recv_or_news(LONG, &news), Received::Frame(_)));
}

#[test]
fn messages_go_both_ways_and_the_end_comes_behind_them() {
    let (source, target, frames) = pair();
    source.start_feed(Features::OFFERED);
    target.welcome();
    source.send(SourceMessage::MakeDurable);
    target.send(TargetMessage::Recovered { sequence: Sequence(7) });
    let answer = SourceEvent::Message(TargetMessage::Recovered { sequence: Sequence(7) });
    assert_eq!(source.events().recv_timeout(LONG), Ok(answer));
    (0..3).for_each(|n| frames.push(frame(n, Bytes::new())));
    let received = target.frames();
    assert_eq!(next(&received).position.sequence, Sequence(0));
    source.close("enough");
    assert_eq!(target.messages().recv_timeout(LONG), Ok(TargetEvent::Message(SourceMessage::MakeDurable)));
    assert_eq!(target_lost(&target), "enough");
    // They had arrived.
    assert_eq!(next(&received).position.sequence, Sequence(1));
    assert_eq!(next(&received).position.sequence, Sequence(2));
    assert!(matches!(received.recv(LONG), Received::Closed { reason } if reason == "enough"));
}

#[test]
fn an_end_of_either_side_ends_a_wait_of_the_other() {
    let (source, target, _frames) = pair();
    target.close("no more");
    assert_eq!(lost(&source), "no more");
    drop(target);
    let (source, target, _frames) = pair();
    let received = target.frames();
    let waiting = std::thread::spawn(move || received.recv(LONG));
    drop(source);
    assert!(matches!(waiting.join().unwrap(), Received::Closed { .. }));
}

#[test]
fn messages_that_nobody_takes_end_it() {
    let (source, target, _frames) = pair();
    for n in 0..=DIRECT_MESSAGES_MAX as u64 {
        target.send(TargetMessage::Recovered { sequence: Sequence(n) });
    }
    assert!(target_lost(&target).contains("unread"));
    assert!(source.events().len() <= DIRECT_MESSAGES_MAX + 1);
    assert!(lost(&source).contains("unread"));
}
