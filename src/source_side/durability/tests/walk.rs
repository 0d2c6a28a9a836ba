//! A random run against the machine's promises.

use super::*;
use crate::random::Random;

/// Whatever happens in whatever order: nobody is told `Durable` of what the rule's targets do not
/// have at that moment, everybody is answered exactly once, and nobody waits beyond the deadline.
#[test]
fn nobody_is_told_what_is_not_true() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let targets = 1 + random.below(3) as usize;
        let needs = if random.below(2) == 0 { Needs::All } else { Needs::Any };
        let late = if random.below(2) == 0 { Late::Fail } else { Late::Degrade };
        run_random(&mut random, Bench::new(needs, late, targets), needs, targets, seed);
    }
}

fn run_random(random: &mut Random, mut bench: Bench, needs: Needs, targets: usize, seed: u64) {
    let (mut last, mut seconds) = (0, 0);
    let mut standings = vec![Standing { in_line: true, durable: Sequence(0), covers: 0 }; targets];
    let mut open: Vec<(Ticket, u64, u64, bool)> = Vec::new();
    let mut barriers = 0;
    for _ in 0..400 {
        match random.below(8) {
            0 | 1 => {
                last += random.below(3);
                open.push((bench.sync(last), last, seconds + TIMEOUT.as_secs(), false));
            }
            2 | 3 if !open.is_empty() => {
                let at = random.below(open.len() as u64) as usize;
                open[at].3 = true;
                let ticket = open[at].0;
                bench.machine.handle_local(ticket);
            }
            4 | 5 => {
                let target = random.below(targets as u64) as usize;
                let durable =
                    standings[target].durable.0 + random.below(last - standings[target].durable.0 + 1);
                standings[target] =
                    Standing { in_line: random.below(5) > 0, durable: Sequence(durable), covers: 0 };
                bench.machine.handle_standing(bench.now, target, standings[target]);
            }
            6 if barriers > 0 => {
                last += 1;
                barriers -= 1;
                bench.barrier(last);
            }
            _ => {
                seconds += random.below(12);
                bench.at(seconds);
            }
        }
        while let Some(action) = bench.machine.poll_action() {
            let Action::Answer { ticket, verdict } = action else {
                barriers += 1;
                assert_eq!(barriers, 1, "seed {seed}: two barriers at once");
                continue;
            };
            let at = open.iter().position(|sync| sync.0 == ticket).unwrap_or_else(|| panic!("seed {seed}"));
            let (_, position, _, local) = open.swap_remove(at);
            assert!(local, "seed {seed}: answered before the local disk had it");
            // What was true when it was decided may be over when the local disk is ready.
            let durable = standings.iter().filter(|target| target.durable >= Sequence(position)).count();
            let enough = if needs == Needs::All { targets } else { 1 };
            assert!(
                verdict != Verdict::Durable || durable >= enough,
                "seed {seed}: {position} is not durable"
            );
        }
        let overdue = open.iter().any(|sync| sync.3 && sync.2 <= seconds);
        assert!(!overdue, "seed {seed}: a sync waits beyond its deadline");
    }
    bench.machine.handle_end();
    open.iter().for_each(|sync| bench.machine.handle_local(sync.0));
    let answered = std::iter::from_fn(|| bench.machine.poll_action())
        .filter(|action| matches!(action, Action::Answer { .. }))
        .count();
    assert_eq!(answered, open.len(), "seed {seed}");
}
