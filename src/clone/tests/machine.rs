//! The machine against its table: each row is a case by name, and whatever is no row is refused.

use std::collections::HashSet;

use crate::clone::machine::{Force, Kind, Next, Refused, State, Trigger, is_ready, is_unit_ready, step};

const TABLE: &str = include_str!("clone-sessions.csv");

struct Row {
    name: String,
    from: Vec<Option<State>>,
    trigger: Trigger,
    kinds: Vec<Kind>,
    to: Option<State>,
    clone_ready: Option<bool>,
    unit_ready: Option<bool>,
    needs_force: bool,
}

fn state(word: &str) -> Option<State> {
    let found = State::ALL.into_iter().find(|state| state.word() == word);
    assert!(found.is_some() || word == "none", "{word} is no state");
    found
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.splitn(8, ',').collect();
    let [from, trigger, kind, to, clone_ready, unit_ready, force, _notes] = cells[..] else {
        panic!("{line}");
    };
    let ready = |word: &str| match word {
        "ready" => Some(true),
        "not_ready" | "in_use_by_restore" => Some(false),
        "" => None,
        other => panic!("{other}"),
    };
    Row {
        name: format!("{from} --{trigger}({kind})--> {to}"),
        from: match from {
            "any" => State::ALL.into_iter().map(Some).collect(),
            one => vec![state(one)],
        },
        trigger: Trigger::ALL.into_iter().find(|known| known.word() == trigger).expect("a trigger"),
        kinds: match kind {
            "copy" => vec![Kind::Copy],
            "mirror" => vec![Kind::Mirror],
            "both" => vec![Kind::Copy, Kind::Mirror],
            other => panic!("{other}"),
        },
        to: state(to),
        clone_ready: ready(clone_ready),
        unit_ready: ready(unit_ready),
        needs_force: force == "yes",
    }
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#') && !line.starts_with("from,"));
    lines.map(row).collect()
}

#[test]
fn each_row_is_a_step() {
    let rows = rows();
    assert_eq!(rows.len(), 18);
    for row in rows {
        eprintln!("{}", row.name);
        for from in &row.from {
            for &kind in &row.kinds {
                check(&row, *from, kind);
            }
        }
    }
}

fn check(row: &Row, from: Option<State>, kind: Kind) {
    let name = &row.name;
    let forced = step(from, row.trigger, kind, Force::Yes);
    assert_eq!(forced, Ok(Next { state: row.to, is_inconsistent: row.needs_force }), "{name}");
    let plain = step(from, row.trigger, kind, Force::No);
    match (row.needs_force, from) {
        (true, Some(state)) => {
            assert_eq!(plain, Err(Refused::NeedsForce { from: state, trigger: row.trigger }), "{name}");
        }
        _ => assert_eq!(plain, forced, "{name}"),
    }
    let Some(to) = row.to else { return };
    assert_eq!(row.clone_ready, Some(is_ready(to, kind)), "{name}: the clone");
    assert_eq!(row.unit_ready, Some(is_unit_ready(to)), "{name}: the unit");
}

#[test]
fn whatever_is_no_row_is_refused_with_one_line() {
    let mut legal = HashSet::new();
    for row in rows() {
        for from in &row.from {
            legal.extend(row.kinds.iter().map(|kind| (*from, row.trigger.word(), kind.word())));
        }
    }
    let mut refused = 0;
    let from = State::ALL.into_iter().map(Some).chain([None]);
    for from in from {
        for trigger in Trigger::ALL {
            for kind in [Kind::Copy, Kind::Mirror] {
                if legal.contains(&(from, trigger.word(), kind.word())) {
                    continue;
                }
                for force in [Force::No, Force::Yes] {
                    let why = step(from, trigger, kind, force).expect_err("no row says so");
                    assert_eq!(why, Refused::NoSuchStep { from, trigger, kind });
                    let text = why.to_string();
                    assert!(!text.is_empty() && !text.contains('\n'), "{text}");
                }
                refused += 1;
            }
        }
    }
    assert_eq!(refused + legal.len(), 7 * 10 * 2);
}
