//! What a target may say, and what follows.

use super::*;

#[track_caller]
fn check(held: Held, proof: ReplicaProof, expected: Decision) {
    assert_eq!(decide(&held, &proof), expected);
}

#[test]
fn only_a_proof_without_a_gap_resumes() {
    let resume = |sequence| Decision::Resume { after: at(sequence) };
    let copy = Decision::Copy;
    let says = |applied| proof(DataState::Good, applied);
    check(held(), says(at(40)), resume(40));
    check(held(), says(at(50)), resume(50));
    check(held(), says(at(60)), resume(60));
    check(held(), proof(DataState::Empty, at(50)), copy(Gap::Empty));
    check(held(), proof(DataState::Bad, at(50)), copy(Gap::Bad));
    // One that follows the stream goes on with what it has, in this run of the source.
    for bad_by in [BadBy::Aside, BadBy::Relief] {
        let follows = |applied| ReplicaProof { bad_by, ..proof(DataState::Bad, applied) };
        check(held(), follows(at(50)), Decision::Resume { after: at(50) });
        let earlier = Position { incarnation: Incarnation(77), ..at(50) };
        check(held(), follows(earlier), copy(Gap::OtherHistory));
    }
    check(held(), says(at(61)), copy(Gap::Ahead));
    let other_run = Position { incarnation: Incarnation(10), ..at(50) };
    check(held(), says(other_run), copy(Gap::OtherHistory));
    let other_writer = Position { epoch: Epoch { number: 1, writer: 8 }, ..at(50) };
    check(held(), says(other_writer), copy(Gap::OtherHistory));
    let split = Position { chain: Chain(1), ..at(60) };
    check(held(), says(split), copy(Gap::Ahead));
    let back = Gap::WentBack { acknowledged: Sequence(40), applied: Sequence(39) };
    check(held(), says(at(39)), copy(back));
    // Another target's packets are still in the queue: that does not make this one's word good.
    check(Held { oldest: Sequence(10), ..held() }, says(at(39)), copy(back));
    // It has acknowledged nothing yet, and the queue was not held for it.
    let unheld = Held { oldest: Sequence(61), acknowledged: Sequence(0), ..held() };
    check(unheld, says(at(50)), copy(Gap::Trimmed { next: Sequence(51), oldest: Sequence(61) }));
    check(unheld, says(at(60)), resume(60));
}

/// What it received and lost with the last session comes again.
#[test]
fn what_was_only_received_is_sent_again() {
    let proof = ReplicaProof { received: at(58), durable: at(45), ..proof(DataState::Good, at(50)) };
    check(held(), proof, Decision::Resume { after: at(50) });
}

/// A replica that lacks nothing but what a copy left out would need a copy after every lost
/// connection, which cannot be made while programs write.
#[test]
fn what_was_left_out_does_not_end_the_stream() {
    let bad = proof(DataState::Bad, at(50));
    assert_eq!(decide(&held(), &bad), Decision::Copy(Gap::Bad));
    let in_line = ReplicaProof { bad_by: BadBy::Aside, ..bad };
    assert_eq!(decide(&held(), &in_line), Decision::Resume { after: at(50) });
}
